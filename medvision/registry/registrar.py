"""What the gate does once it is asked: judge by its rules, then change aliases, stages, tags and ledger as one.

What takes time, the reading of a package, is done before the transaction. What changed meanwhile is a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from sqlalchemy.orm import Session

from medvision.errors import ConfigInvalid, GateFailed, PromotionConflict, SourceUnusable, VersionConflict
from medvision.registry.gate import (
    Case,
    Proof,
    Rules,
    check_approval,
    check_ledger,
    check_promotion,
    check_rollback,
    find_state,
    last_proof,
    load_rules,
)
from medvision.registry.identity import identify
from medvision.registry.ledger import CHALLENGER, CHAMPION, MOVES, Entry, holders, rollback_target
from medvision.registry.model_files import ModelFiles, find_trainer, open_files
from medvision.registry.names import SEMANTIC, version_alias
from medvision.registry.requests import UNSAID, Request, Unsaid
from medvision.registry.rows import (
    ARCHIVED,
    append,
    append_anyway,
    drop_aliases,
    has_tags,
    move_alias,
    read_aliases,
    read_entries,
    read_holders,
    set_alias,
    set_stage,
    write_tags,
)

# Figures of a verdict that the list of versions shows.
_FIGURES = {"test_accuracy": "accuracy", "test_balanced_accuracy": "balanced_accuracy"}

Reading = Callable[[], AbstractContextManager[Session]]
Writing = Callable[[str], AbstractContextManager[Session]]
FindRow = Callable[[Session, str, int], SqlModelVersion]


@dataclass(frozen=True)
class Sight:
    """A version and its model's ledger as they stood when somebody asked.

    ``held`` are the aliases in the database, ``created`` is when the version was, ``location`` is where its files are.
    """

    name: str
    version: int
    source: str
    created: int
    location: str
    entries: Sequence[Entry]
    held: dict[str, int]

    def case(self, alias: str) -> Case:
        """Return the case of this version for an alias."""
        return Case(self.name, self.version, alias, self.entries)


class Registrar:
    """Changes what the gate guards.

    Parameters
    ----------
    reading, writing: open a session on the registry; a writing one is one transaction that locks the model of a name.
    find_row: returns the row of a version, or raises MLflow's error that there is none.
    """

    def __init__(self, reading: Reading, writing: Writing, find_row: FindRow, tracking_uri: str | None) -> None:
        self._reading, self._writing, self._find_row = reading, writing, find_row
        self.tracking_uri = tracking_uri

    def answer(self, name: str, version: int, request: Request) -> None:
        """Do what a request asks for."""
        if request.action == "promote":
            self.promote(name, version, request.to, request.replacing, request.meaning, request.reason)
        elif request.action == "archive":
            self.archive(name, version, request.meaning, request.reason)
        else:
            {"rollback": self._roll_back, "approve": self._approve, "attest": self._attest}[request.action](
                name, version, request
            )

    def promote(
        self,
        name: str,
        version: int,
        alias: str,
        replacing: int | Unsaid | None = UNSAID,
        meaning: str = "",
        reason: str = "",
    ) -> None:
        """Make a version challenger or champion; nothing changes if it is already."""
        rules, sight = load_rules(), self._look(name, version)
        _check_replacing(sight, alias, replacing)
        case = sight.case(alias)
        check_ledger(case, sight.held, rules)
        if sight.held.get(alias) == version:
            return
        if sight.held.get(CHAMPION) == version:
            raise case.refuse(
                "order", required="another version than the champion", found="the champion",
                next_=f"medvision archive {name}/{version}, or promote another version to champion",
            )  # fmt: skip
        with self._files(case, sight.source) as files:
            proof = check_promotion(case, files, self._trainer(files, rules), rules)
        self._move(sight, alias, rules, "promote", proof, meaning, reason)

    def archive(self, name: str, version: int, meaning: str = "", reason: str = "") -> None:
        """Take challenger and champion from a version: always possible, whatever is wrong with it or with the ledger.

        A version that holds neither is archived too, and a rollback will not come back to it.
        """
        state = find_state()
        with self._writing(name) as session:
            alias = self._withdraw(session, name, version)
            entry = _entry(name, version, "archive", alias=alias, meaning=meaning, reason=reason)
            append_anyway(session, entry, state)

    def _withdraw(self, session: Session, name: str, version: int) -> str:
        """Take a version out of use; return the alias that it had, empty if none."""
        try:
            row = self._find_row(session, name, version)
        except MlflowException:
            # Deleted past the gate: the ledger must be able to let go of it.
            told = {holder: alias for alias, holder in holders(read_entries(session, name)).items()}
            if version not in told:
                raise
            return told[version]
        had = drop_aliases(session, row)
        set_stage(row, ARCHIVED)
        return had[0] if had else ""

    def register(self, session: Session, row: SqlModelVersion, semantic: str | None, proof: Proof) -> None:
        """Enter a version that was just created: its tags, the alias of its semantic version, and its entry."""
        rules, alias = load_rules(), _semantic_alias(semantic) if semantic else ""
        write_tags(session, row, _tags(proof))
        if alias:
            set_alias(session, row, alias)
        entry = _entry(str(row.name), int(row.version), "register", proof, alias=alias)
        append(session, entry, rules.state, rules.trusted)

    def prove(self, name: str, source: str) -> Proof:
        """Return what speaks for a version that is about to be created; nothing, if it is of no logged model."""
        rules = load_rules()
        try:
            with open_files(source, self.tracking_uri) as files:
                return last_proof(name, files, rules)
        except SourceUnusable:
            return Proof()

    def check_semantic(self, session: Session, name: str, semantic: str) -> None:
        """Raise VersionConflict if a semantic version was given before, also to a version that is gone by now."""
        alias = _semantic_alias(semantic)
        if alias in read_aliases(session, name) or any(
            (entry.action, entry.alias) == ("register", alias) for entry in read_entries(session, name)
        ):
            raise VersionConflict(f"{name} {semantic} is registered already. Choose another --version.")

    def _roll_back(self, name: str, version: int, request: Request) -> None:
        rules, sight = load_rules(), self._look(name, version)
        _check_replacing(sight, CHAMPION, request.replacing)
        case = sight.case(CHAMPION)
        check_ledger(case, sight.held, rules)
        _require(request.reason, "rollback", "a reason")
        target = rollback_target(sight.entries)
        if target is None:
            raise case.refuse(
                "rollback", required="an earlier champion that was not withdrawn", found="none",
                next_=f"medvision promote {name}/{version}",
            )  # fmt: skip
        if target != version:
            raise PromotionConflict(
                f"A rollback of {name} goes to version {target}, the last champion before the present one, and not to "
                f"version {version}. Nothing was changed. Look: medvision history {name}"
            )
        # An emergency must not fail because the logged model was deleted: its files are there still.
        with self._files(case, sight.source, sight.location) as files:
            proof = check_rollback(case, files, rules)
        self._move(sight, CHAMPION, rules, "rollback", proof, request.meaning, request.reason)

    def _approve(self, name: str, version: int, request: Request) -> None:
        rules, sight, identity = load_rules(), self._look(name, version), identify()
        if not identity.is_named:
            raise GateFailed(
                f"An approval of {name} version {version} must carry a name. Rule: approvals. Required: a named user. "
                "Found: an anonymous request. Next: start the server with medvision ui --auth, and log in; or approve "
                "on the server's own machine"
            )
        _require(request.meaning, "approve", "a meaning, what the approval stands for")
        _require(request.reason, "approve", "a reason")
        case = sight.case(CHAMPION)
        check_ledger(case, sight.held, rules)
        with self._files(case, sight.source) as files:
            proof = check_approval(case, identity.who, files, self._trainer(files, rules), rules)
        entry = _entry(name, version, "approve", proof, meaning=request.meaning, reason=request.reason)
        with self._writing(name) as session:
            self._find_judged(session, sight)
            append(session, entry, rules.state, rules.trusted)

    def _attest(self, name: str, version: int, request: Request) -> None:
        rules, sight = load_rules(), self._look(name, version)
        with self._files(sight.case(CHALLENGER), sight.source) as files:
            proof = last_proof(name, files, rules)
        with self._writing(name) as session:
            row, tags = self._find_judged(session, sight), _tags(proof)
            if _is_told(sight, proof) and has_tags(session, row, tags):
                return
            write_tags(session, row, tags)
            entry = _entry(name, version, "attest", proof, meaning=request.meaning, reason=request.reason)
            append(session, entry, rules.state, rules.trusted)

    def _look(self, name: str, version: int) -> Sight:
        with self._reading() as session:
            row = self._find_row(session, name, version)
            # The ledger first: what is changed after it is read makes the compare-and-set fail.
            entries = read_entries(session, name)
            return Sight(
                name=name,
                version=version,
                source=str(row.source),
                created=int(row.creation_time),
                location=str(row.storage_location or ""),
                entries=entries,
                held=read_holders(session, name),
            )

    def _find_judged(self, session: Session, sight: Sight) -> SqlModelVersion:
        """Return the row of the version that was judged; PromotionConflict if another one has its number by now."""
        row = self._find_row(session, sight.name, sight.version)
        if (str(row.source), int(row.creation_time)) != (sight.source, sight.created):
            raise PromotionConflict(
                f"{sight.name} version {sight.version} is another one than when this was asked for: it was deleted and "
                f"made again meanwhile. Nothing was changed. Look: medvision history {sight.name}"
            )
        return row

    @contextmanager
    def _files(self, case: Case, source: str, kept_at: str = "") -> Iterator[ModelFiles]:
        try:
            with open_files(source, self.tracking_uri, kept_at) as files:
                yield files
        except SourceUnusable as error:
            raise case.refuse(
                "source", required="a logged model of MLflow's, models:/m-...", found=str(error),
                next_="medvision register",
            ) from None  # fmt: skip

    def _trainer(self, files: ModelFiles, rules: Rules) -> str | None:
        return find_trainer(files.run_id, self.tracking_uri) if rules.settings.separation_of_duties else None

    def _move(
        self, sight: Sight, alias: str, rules: Rules, action: str, proof: Proof, meaning: str, reason: str
    ) -> None:
        """Write what was decided, unless champion or challenger has changed since the decision was begun."""
        with self._writing(sight.name) as session:
            row = self._find_judged(session, sight)
            entries, held = read_entries(session, sight.name), read_holders(session, sight.name)
            since = entries[len(sight.entries) :]
            if held != sight.held or any(entry.action in MOVES for entry in since):
                raise _conflict(sight.name, alias, sight.held.get(alias), held.get(alias))
            entry = _entry(
                sight.name, sight.version, action, proof,
                alias=alias, replaced=held.get(alias), meaning=meaning, reason=reason,
            )  # fmt: skip
            append(session, entry, rules.state, rules.trusted)
            move_alias(session, row, alias)


def _semantic_alias(semantic: str) -> str:
    """Return the alias of a semantic version; ConfigInvalid if it is none."""
    if not SEMANTIC.fullmatch(semantic):
        raise ConfigInvalid(f"The tag version expects MAJOR.MINOR.PATCH, for example 1.0.0; found {semantic!r}.")
    return version_alias(semantic)


def _check_replacing(sight: Sight, alias: str, replacing: int | Unsaid | None) -> None:
    found = sight.held.get(alias)
    if not isinstance(replacing, Unsaid) and replacing != found:
        raise _conflict(sight.name, alias, replacing, found)


def _is_told(sight: Sight, proof: Proof) -> bool:
    """Tell whether the last evidence of a version in the ledger is this one."""
    acts = ("register", "attest")
    told = [entry for entry in sight.entries if entry.version == sight.version and entry.action in acts]
    evidence = (proof.package_digest, proof.verdict_sha256)
    return bool(told) and (told[-1].package_digest, told[-1].verdict_sha256) == evidence


def _conflict(name: str, alias: str, expected: int | None, found: int | None) -> PromotionConflict:
    was, is_ = ("none" if each is None else f"version {each}" for each in (expected, found))
    return PromotionConflict(
        f"The {alias} of {name} was {was} when this was asked for, and is {is_} now: somebody else was quicker. "
        f"Nothing was changed. Look: medvision history {name}"
    )


def _require(text: str, action: str, what: str) -> None:
    if not text.strip():
        raise ConfigInvalid(f"{action} expects {what}; found none.")


def _entry(
    name: str,
    version: int,
    action: str,
    proof: Proof | None = None,
    *,
    alias: str = "",
    replaced: int | None = None,
    meaning: str = "",
    reason: str = "",
) -> Entry:
    proof = proof or Proof()
    return Entry(
        name=name,
        sequence=0,
        time="",
        who=identify().who,
        action=action,
        version=version,
        alias=alias,
        replaced=replaced,
        package_digest=proof.package_digest,
        verdict_sha256=proof.verdict_sha256,
        policy=proof.verdict.policy if proof.verdict else "",
        test_fingerprint=proof.verdict.test_fingerprint if proof.verdict else "",
        code_sha256=proof.code_sha256,
        meaning=meaning,
        reason=reason,
    )


def _tags(proof: Proof) -> dict[str, str | None]:
    """Return the tags that show what speaks for a version; None for those that it must not have."""
    verdict = proof.verdict
    figures = verdict.figures if verdict else {}
    return {
        "medvision.verdict": verdict.state if verdict else "none",
        "medvision.package_digest": proof.package_digest or None,
        "medvision.policy": verdict.policy if verdict else None,
        "medvision.grade": verdict.grade if verdict else None,
        "medvision.test_fingerprint": verdict.test_fingerprint if verdict else None,
        "medvision.split_fingerprint": verdict.split_fingerprint if verdict else None,
        "medvision.policy_fingerprint": verdict.policy_fingerprint if verdict else None,
        **{tag: _figure(figures.get(name)) for tag, name in _FIGURES.items()},
    }


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
