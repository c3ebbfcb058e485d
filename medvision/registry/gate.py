"""The rules of a promotion: what a version must show before it may be challenger or champion.

The gate believes no tag and no figure that a client can write: only the bytes of the package, and verdicts that a key
which it trusts has signed. Each refusal says the rule, what it requires, what was found, and the command to run next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.config import Config, RegistryConfig, load_config
from medvision.errors import CheckpointCorrupt, GateFailed, LedgerBroken, VerdictUntrusted
from medvision.models.package_files import package_digest, verify_digest
from medvision.records import Verdict
from medvision.registry.ledger import (
    CHAMPION,
    Entry,
    approvals,
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
    def champion_digest(self) -> str | None:
        """Return the digest of the present champion's package; None if no other version is champion."""
        champion = holders(self.entries).get(CHAMPION)
        promotion = None if champion in (None, self.version) else last_promotion(self.entries, champion or 0)
        return promotion.package_digest if promotion else None


@dataclass(frozen=True)
class Proof:
    """The evidence of an act: the package's digest, and the verdict on it with the hash of its envelope, if any."""

    package_digest: str = ""
    verdict: Verdict | None = None
    verdict_sha256: str = ""
    code_sha256: str = ""


def check_ledger(case: Case, aliases: Mapping[str, int], rules: Rules) -> None:
    """Refuse where the ledger is broken, or was passed by: nothing can be built on it."""
    try:
        check_chain(case.entries, rules.trusted)
    except LedgerBroken as error:
        next_ = f"medvision verify {case.name}, in the folder of the project whose registry it is"
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
    proof = _find_verdict(case, files, digest, rules)
    if case.alias == CHAMPION:
        _check_approvals(case, digest, trainer, rules)
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
    """Return what a user approves; GateFailed if this one may not, or if the package is not whole."""
    digest = _stated_digest(case, files)
    objection = _objection(case, who, digest, trainer, rules)
    if objection:
        required, found = objection
        raise GateFailed(
            f"{who} may not approve {case.name} version {case.version}. Rule: approvals. Required: {required}. "
            f"Found: {found}. Next: ask one who may to run: medvision approve {case.name}/{case.version}"
        )
    _check_bytes(case, files, digest)
    return best_proof(files, rules)


def best_proof(files: ModelFiles, rules: Rules) -> Proof:
    """Return the package's digest and the verdict that says most for it, of those that are signed and about it."""
    folder = files.path(PACKAGE)
    try:
        digest = package_digest(folder) if folder else ""
    except CheckpointCorrupt:
        digest = ""
    found = []
    for name in files.names(VERDICTS) if digest else ():
        text = files.text(f"{VERDICTS}/{name}")
        try:
            verdict = open_envelope(text or "", dict(rules.trusted))
        except VerdictUntrusted:
            continue
        if text and verdict.package_digest == digest:
            found.append(Proof(digest, verdict, _sha256(text)))
    return max(found, key=lambda proof: _rank(proof, rules), default=Proof(digest))


def _rank(proof: Proof, rules: Rules) -> tuple[bool, bool, str]:
    assert proof.verdict is not None
    return proof.verdict.passed, proof.verdict.policy in rules.settings.champion, proof.verdict.made_at


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


def _find_verdict(case: Case, files: ModelFiles, digest: str, rules: Rules) -> Proof:
    """Return the verdict that meets all rules; else refuse by the first that is there."""
    refusals: list[GateFailed] = []
    for name in rules.accepted(case.alias):
        if files.text(f"{VERDICTS}/{name}{ENVELOPE}") is None:
            continue
        try:
            verdict, sha256 = _open(case, files, name, rules)
            _check_subject(case, verdict, digest, _validate(name))
            policy = _check_policy(case, verdict, name, rules)
            _check_test_set(case, verdict, rules)
            if case.alias == CHAMPION:
                _check_champion(case, verdict, policy)
            return Proof(digest, verdict, sha256)
        except GateFailed as error:
            refusals.append(error)
    raise refusals[0] if refusals else _none(case, rules)


def _find_passed(case: Case, files: ModelFiles, digest: str, rules: Rules) -> Proof:
    """Return a passed verdict on the package under any policy; else refuse by the first verdict that is there."""
    refusals: list[GateFailed] = []
    for name in files.names(VERDICTS):
        try:
            verdict, sha256 = _open(case, files, name.removesuffix(ENVELOPE), rules)
            _check_subject(case, verdict, digest, "medvision promote, of another version that has passed")
            return Proof(digest, verdict, sha256)
        except GateFailed as error:
            refusals.append(error)
    raise refusals[0] if refusals else _none(case, rules)


def _none(case: Case, rules: Rules) -> GateFailed:
    accepted = rules.accepted(case.alias)
    required = f"a signed verdict under policy {' or '.join(accepted)}"
    return case.refuse("verdict", required=required, found="none", next_=_validate(accepted[-1]))


def _open(case: Case, files: ModelFiles, policy: str, rules: Rules) -> tuple[Verdict, str]:
    text = files.text(f"{VERDICTS}/{policy}{ENVELOPE}") or ""
    try:
        return open_envelope(text, dict(rules.trusted)), _sha256(text)
    except VerdictUntrusted as error:
        required = "a verdict signed by a key that the gate trusts"
        raise case.refuse("signature", required=required, found=str(error), next_=_validate(policy)) from None


def _check_subject(case: Case, verdict: Verdict, digest: str, next_: str) -> None:
    """Refuse a verdict on another package or another model, and one that is not passed."""
    if verdict.package_digest != digest:
        required, found = f"a verdict on package {digest[:12]}", f"one on package {verdict.package_digest[:12]}"
        raise case.refuse("digest", required=required, found=found, next_=next_)
    if verdict.model != case.name:
        required, found = f"a verdict on {case.name}", f"one on {verdict.model}"
        raise case.refuse("name", required=required, found=found, next_=f"medvision register, as {verdict.model}")
    if not verdict.passed:
        reasons = [outcome.message for outcome in verdict.outcomes if not outcome.passed]
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        found = f"{verdict.state.replace('_', ' ')} under policy {verdict.policy}: {'; '.join(reasons[:3])}{more}"
        raise case.refuse("verdict", required="a passed verdict", found=found, next_=next_)


def _check_policy(case: Case, verdict: Verdict, name: str, rules: Rules) -> Policy:
    """Return the policy of a verdict; refuse one under other rules than those that the gate has now."""
    policy = rules.policy(name)
    if policy is None or (verdict.policy, verdict.policy_fingerprint) != (name, policy.fingerprint):
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
    champion = case.champion_digest
    if policy.rules.non_inferiority is None or champion in (None, verdict.package_digest, verdict.champion_digest):
        return
    against = f"against {verdict.champion_digest[:12]}" if verdict.champion_digest else "against no champion"
    raise case.refuse(
        "non_inferiority",
        required=f"a verdict against the present champion, package {str(champion)[:12]}",
        found=f"one {against}: outdated, validate again",
        next_=_validate(policy.name),
    )


def _check_approvals(case: Case, digest: str, trainer: str | None, rules: Rules) -> None:
    given = [
        entry.who
        for entry in approvals(case.entries, case.version, digest)
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


_REGISTER = "medvision register, from the package as it was made"
_AGAIN = "medvision register, with the medvision that the gate has"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
