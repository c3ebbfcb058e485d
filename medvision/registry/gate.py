"""The rules of a promotion: what a version must show before it may be challenger or champion.

The gate believes no tag and no figure that a client can write: only the bytes of the package, and verdicts that a key
which it trusts has signed. Each refusal says the rule, what it requires, what was found, and the command to run next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.config import Config, RegistryConfig, load_config
from medvision.errors import CheckpointCorrupt, ConfigInvalid, GateFailed, LedgerBroken, VerdictUntrusted
from medvision.models.package_files import package_digest, verify_digest
from medvision.records import Verdict
from medvision.registry.ledger import (
    CHAMPION,
    Entry,
    approvals,
    champion_to_beat,
    check_chain,
    first_test_set,
    holders,
    last_promotion,
)
from medvision.registry.loader import check_loader, own_code
from medvision.registry.model_files import ModelFiles
from medvision.validation.attestation import open_envelope
from medvision.validation.keys import load_trusted_keys
from medvision.validation.policy import Policy, load_policies

PACKAGE, VERDICTS, ENVELOPE = "artifacts/package", "verdicts", ".dsse.json"


@dataclass(frozen=True)
class Rules:
    """What the gate goes by: settings, policies and trusted keys of the project whose folder it works in."""

    config: Config
    trusted: Mapping[str, Ed25519PublicKey]

    @property
    def state(self) -> Path:
        """Return the state folder, in which the keys are."""
        return self.config.paths.state

    @property
    def settings(self) -> RegistryConfig:
        """Return the section of the settings that is about promotions."""
        return self.config.registry

    def policy(self, name: str) -> Policy | None:
        """Return a policy as it stands now; ConfigInvalid if the policies can't be read."""
        return load_policies().get(name)

    def accepted(self, alias: str) -> tuple[str, ...]:
        """Return the policies, one of which the holder of an alias must have passed."""
        return self.settings.champion if alias == CHAMPION else self.settings.challenger


def load_rules() -> Rules:
    """Read what the gate goes by, anew for each request; ConfigInvalid if any of it can't be read."""
    config = load_config()
    return Rules(config, load_trusted_keys(config.paths.state))


def find_state() -> Path:
    """Return the state folder, also where the settings can't be read: its own key is all that a withdrawal needs."""
    try:
        return load_config().paths.state
    except ConfigInvalid:
        return Config().paths.state


@dataclass(frozen=True)
class Case:
    """What is asked for: that a version may be ``alias`` (or is approved for it), as things stand in the ledger."""

    name: str
    version: int
    alias: str
    entries: Sequence[Entry]

    def refuse(self, rule: str, *, required: str, found: str, next_: str) -> GateFailed:
        """Return the refusal of what is asked for."""
        return GateFailed(
            f"{self.name} version {self.version} may not become {self.alias}. Rule: {rule}. Required: {required}. "
            f"Found: {found}. Next: {next_}"
        )

    @property
    def rival(self) -> Entry | None:
        """Return the promotion of the champion that this version is compared with; None if that is no other one."""
        champion = champion_to_beat(self.entries)
        return None if champion is None or champion.version == self.version else champion


@dataclass(frozen=True)
class Proof:
    """The evidence of an act: the package's digest, and the verdict on it with the hash of its envelope, if any."""

    package_digest: str = ""
    verdict: Verdict | None = None
    verdict_sha256: str = ""
    code_sha256: str = ""


@dataclass(frozen=True)
class Judged(Proof):
    """A proof that has a verdict."""

    package_digest: str
    verdict: Verdict
    verdict_sha256: str


def check_ledger(case: Case, aliases: Mapping[str, int], rules: Rules) -> None:
    """Refuse where the ledger is broken, or was passed by: nothing can be built on it."""
    try:
        check_chain(case.entries, rules.trusted)
    except LedgerBroken as error:
        next_ = f"medvision history {case.name}, in the folder of the project whose registry it is"
        raise case.refuse("ledger", required="a whole ledger", found=str(error), next_=next_) from None
    told = holders(case.entries)
    for alias in sorted({*told, *aliases}):
        if told.get(alias) != aliases.get(alias):
            raise case.refuse(
                "ledger",
                required=f"{alias} = {_version(told.get(alias))}, as the ledger says",
                found=f"{alias} = {_version(aliases.get(alias))}: it was changed past the gate",
                next_=f"medvision archive {case.name}/{aliases.get(alias) or told.get(alias)}, then promote again",
            )


def check_promotion(case: Case, files: ModelFiles, trainer: str | None, rules: Rules) -> Proof:
    """Return the proof on which a version may be promoted; GateFailed if it may not.

    What costs least is checked first: the bytes of the weights come last.
    """
    digest = _stated_digest(case, files)
    proof = _find_verdict(case, files, digest, trainer, rules)
    # What a later verdict says counts, whatever its policy: loading would refuse the version by it.
    _find_passed(case, files, digest, rules)
    _check_bytes(case, files, digest)
    return replace(proof, code_sha256=own_code())


def check_rollback(case: Case, files: ModelFiles, rules: Rules) -> Proof:
    """Return the proof on which a former champion may come back; GateFailed if it may not.

    Package, signature and a passed verdict alone: an emergency must not wait for a new policy.
    """
    digest = _stated_digest(case, files)
    proof = _find_passed(case, files, digest, rules)
    promotion = last_promotion(case.entries, case.version)
    # A later medvision may have another loader; the one that was promoted is as good as it was.
    _check_bytes(case, files, digest, {promotion.code_sha256} if promotion else ())
    return replace(proof, code_sha256=promotion.code_sha256 if promotion else "")


def check_approval(case: Case, who: str, files: ModelFiles, trainer: str | None, rules: Rules) -> Proof:
    """Return what a user approves, a passed verdict; GateFailed if this one may not, or if the package is not whole."""
    digest = _stated_digest(case, files)
    accepted = rules.accepted(case.alias)
    passed = [
        proof
        for proof in _proofs(case.name, files, digest, rules)
        if proof.verdict.passed and proof.verdict.policy in accepted
    ]
    if not passed:
        required = f"a passed verdict under policy {' or '.join(accepted)}, which the approval is then bound to"
        raise case.refuse("verdict", required=required, found="none", next_=_validate(accepted[-1]))
    _check_trainer(case, trainer, rules)
    objection = _objection(case, who, digest, trainer, rules)
    if objection:
        required, found = objection
        raise GateFailed(
            f"{who} may not approve {case.name} version {case.version}. Rule: approvals. Required: {required}. "
            f"Found: {found}. Next: ask one who may to run: medvision approve {case.name}/{case.version}"
        )
    _check_bytes(case, files, digest)
    return max(passed, key=_rank)


def last_proof(name: str, files: ModelFiles, rules: Rules) -> Proof:
    """Return the package's digest and the last verdict on it under a registered name, if a trusted key signed one."""
    folder = files.path(PACKAGE)
    try:
        digest = package_digest(folder) if folder else ""
    except CheckpointCorrupt:
        digest = ""
    proofs = _proofs(name, files, digest, rules) if digest else []
    return max(proofs, key=_rank, default=Proof(digest))


def _proofs(name: str, files: ModelFiles, digest: str, rules: Rules) -> list[Judged]:
    """Return the verdicts on a package under a registered name, each signed, and in the file of its policy."""
    found = []
    for policy in _policies(files):
        text = files.text(f"{VERDICTS}/{policy}{ENVELOPE}") or ""
        try:
            verdict = open_envelope(text, dict(rules.trusted))
        except VerdictUntrusted:
            continue
        if (verdict.package_digest, verdict.model, verdict.policy) == (digest, name, policy):
            found.append(Judged(digest, verdict, _sha256(text)))
    return found


def _policies(files: ModelFiles) -> list[str]:
    return [name.removesuffix(ENVELOPE) for name in files.names(VERDICTS) if name.endswith(ENVELOPE)]


def _rank(proof: Judged) -> tuple[str, bool]:
    """Return what the last verdict has most of; of two at the same time the one that is not passed counts."""
    return proof.verdict.made_at, not proof.verdict.passed


def _stated_digest(case: Case, files: ModelFiles) -> str:
    """Return the digest of what package.json says; the weights are read later."""
    required = f"a model package in {PACKAGE} of the logged model {files.id}"
    folder = files.path(PACKAGE)
    if folder is None:
        raise case.refuse("package", required=required, found="none", next_=_REGISTER)
    try:
        return package_digest(folder)
    except CheckpointCorrupt as error:
        raise case.refuse("package", required=required, found=str(error), next_=_REGISTER) from None


def _check_bytes(case: Case, files: ModelFiles, digest: str, code: Container[str] = ()) -> None:
    """Refuse unless every byte that answers for the model is one that was judged: its package, and its loader."""
    folder = files.path(PACKAGE)
    try:
        found = verify_digest(folder) if folder else "none"
    except CheckpointCorrupt as error:
        found = str(error)
    if found != digest:
        required = f"the package {digest[:12]} that was judged, to the byte"
        raise case.refuse("package", required=required, found=found, next_=_REGISTER)
    problem = check_loader(files, code)
    if problem:
        raise case.refuse("loader", required="the loader of medvision, and no other code", found=problem, next_=_AGAIN)


def _find_verdict(case: Case, files: ModelFiles, digest: str, trainer: str | None, rules: Rules) -> Proof:
    """Return the verdict that meets all rules; else refuse by the first that is there."""
    refusals: list[GateFailed] = []
    for name in rules.accepted(case.alias):
        if files.text(f"{VERDICTS}/{name}{ENVELOPE}") is None:
            continue
        try:
            verdict, sha256 = _open(case, files, name, rules)
            _check_subject(case, verdict, digest, _validate(name))
            _check_passed(case, verdict, _validate(name))
            policy = _check_policy(case, verdict, name, rules)
            _check_test_set(case, verdict, rules)
            if case.alias == CHAMPION:
                _check_champion(case, verdict, policy)
                _check_approvals(case, digest, sha256, trainer, rules)
            return Proof(digest, verdict, sha256)
        except GateFailed as error:
            refusals.append(error)
    raise refusals[0] if refusals else _none(case, rules)


def _find_passed(case: Case, files: ModelFiles, digest: str, rules: Rules) -> Proof:
    """Return the last verdict on the package under any policy, if it is passed; refuse if not, or if there is none."""
    found, refusals = [], []
    for name in _policies(files):
        try:
            verdict, sha256 = _open(case, files, name, rules)
            _check_subject(case, verdict, digest, _ANOTHER)
            found.append(Judged(digest, verdict, sha256))
        except GateFailed as error:
            refusals.append(error)
    if not found:
        raise refusals[0] if refusals else _none(case, rules)
    proof = max(found, key=_rank)
    _check_passed(case, proof.verdict, _ANOTHER)
    return proof


def _none(case: Case, rules: Rules) -> GateFailed:
    accepted = rules.accepted(case.alias)
    required = f"a signed verdict under policy {' or '.join(accepted)}"
    return case.refuse("verdict", required=required, found="none", next_=_validate(accepted[-1]))


def _open(case: Case, files: ModelFiles, policy: str, rules: Rules) -> tuple[Verdict, str]:
    text = files.text(f"{VERDICTS}/{policy}{ENVELOPE}") or ""
    try:
        verdict = open_envelope(text, dict(rules.trusted))
    except VerdictUntrusted as error:
        required = "a verdict signed by a key that the gate trusts"
        raise case.refuse("signature", required=required, found=str(error), next_=_validate(policy)) from None
    if verdict.policy != policy:
        required, found = f"a verdict under policy {policy} in {policy}{ENVELOPE}", f"one under {verdict.policy}"
        raise case.refuse("policy", required=required, found=found, next_=_validate(policy))
    return verdict, _sha256(text)


def _check_subject(case: Case, verdict: Verdict, digest: str, next_: str) -> None:
    """Refuse a verdict on another package or another model."""
    if verdict.package_digest != digest:
        required, found = f"a verdict on package {digest[:12]}", f"one on package {verdict.package_digest[:12]}"
        raise case.refuse("digest", required=required, found=found, next_=next_)
    if verdict.model != case.name:
        required, found = f"a verdict on {case.name}", f"one on {verdict.model}"
        raise case.refuse("name", required=required, found=found, next_=f"medvision register, as {verdict.model}")


def _check_passed(case: Case, verdict: Verdict, next_: str) -> None:
    if not verdict.passed:
        reasons = [outcome.message for outcome in verdict.outcomes if not outcome.passed]
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        found = f"{verdict.state.replace('_', ' ')} under policy {verdict.policy}: {'; '.join(reasons[:3])}{more}"
        raise case.refuse("verdict", required="a passed verdict", found=found, next_=next_)


def _check_policy(case: Case, verdict: Verdict, name: str, rules: Rules) -> Policy:
    """Return the policy of a verdict; refuse one under other rules than those that the gate has now."""
    policy = rules.policy(name)
    if policy is None or verdict.policy_fingerprint != policy.fingerprint:
        required = f"policy {name} as the gate has it, {policy.fingerprint[:12] if policy else 'which is none'}"
        found = f"policy {verdict.policy}, {verdict.policy_fingerprint[:12]}, of {verdict.made_at}: outdated"
        raise case.refuse("policy", required=required, found=found, next_=_validate(name))
    return policy


def _check_test_set(case: Case, verdict: Verdict, rules: Rules) -> None:
    first = first_test_set(case.entries)
    approved = rules.settings.test_sets or ((first,) if first else ())
    if approved and verdict.test_fingerprint not in approved:
        required = f"an approved test set, {' or '.join(each[:12] for each in approved)}"
        next_ = "evaluate on an approved test set, or add this one to registry.test_sets of the gate's settings"
        raise case.refuse("test_set", required=required, found=verdict.test_fingerprint[:12], next_=next_)


def _check_champion(case: Case, verdict: Verdict, policy: Policy) -> None:
    rival = case.rival
    if policy.rules.non_inferiority is None or rival is None:
        return
    if rival.package_digest in (verdict.package_digest, verdict.champion_digest):
        return
    against = f"against {verdict.champion_digest[:12]}" if verdict.champion_digest else "against no champion"
    is_present = holders(case.entries).get(CHAMPION) == rival.version
    withdraw = f"; or say why the last champion went: medvision archive {case.name}/{rival.version} --reason REASON"
    raise case.refuse(
        "non_inferiority",
        required=f"a verdict against the {'present' if is_present else 'last'} champion, version {rival.version}, "
        f"package {rival.package_digest[:12]}",
        found=f"one {against}: outdated, validate again",
        next_=_validate(policy.name) + ("" if is_present else withdraw),
    )


def _check_trainer(case: Case, trainer: str | None, rules: Rules) -> None:
    """Refuse where nobody can tell who trained the model, and whoever trained it may not approve it."""
    if rules.settings.separation_of_duties and trainer is None:
        raise case.refuse(
            "separation_of_duties",
            required="a logged model whose run tells who trained it (its tag mlflow.user)",
            found="none that does",
            next_="medvision register, from the run that trained it",
        )


def _check_approvals(case: Case, digest: str, verdict_sha256: str, trainer: str | None, rules: Rules) -> None:
    if not rules.settings.approvals:
        return
    _check_trainer(case, trainer, rules)
    given = [
        entry.who
        for entry in approvals(case.entries, case.version, digest, verdict_sha256)
        if _objection(case, entry.who, digest, trainer, rules) is None
    ]
    if len(given) < rules.settings.approvals:
        raise case.refuse(
            "approvals",
            required=f"{rules.settings.approvals} by {' or '.join(rules.settings.approvers) or 'named users'}",
            found=f"{len(given)}{f' ({_listed(given)})' if given else ''}",
            next_=f"medvision approve {case.name}/{case.version} --meaning MEANING --reason REASON",
        )


def _objection(case: Case, who: str, digest: str, trainer: str | None, rules: Rules) -> tuple[str, str] | None:
    """Return what is required of an approver and what was found, if the approval of this user does not count."""
    settings = rules.settings
    if settings.approvers and who not in settings.approvers:
        return f"one of {_listed(settings.approvers)}", who
    if not settings.separation_of_duties:
        return None
    registered = {
        entry.who
        for entry in case.entries
        if entry.action == "register" and (entry.version == case.version or entry.package_digest == digest)
    }
    duty = "trained" if who == trainer else "registered" if who in registered else None
    return ("another than who trained or registered it", f"{who}, who {duty} it") if duty else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _version(number: int | None) -> str:
    return "none" if number is None else f"version {number}"


def _validate(policy: str) -> str:
    return f"medvision validate --policy {policy}, then medvision register"


_ANOTHER = "medvision promote, of another version that has passed"
_REGISTER = "medvision register, from the package as it was made"
_AGAIN = "medvision register, with the medvision that the gate has"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
