"""The rules: each held against what was found, with the reason and what would mend it.

A figure that is missing, None, NaN or infinite fails its rule, and so does evidence that was not gathered. A rule on a
bound that no model could meet on so few cases is insufficient evidence, unless the cases there speak against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from medvision.records import Evaluation, Figure, RuleOutcome, State
from medvision.validation import remedies
from medvision.validation.evidence import Evidence
from medvision.validation.policy import Ceilings, ClassMinimums, Minimums, Policy
from medvision.validation.power import (
    PROPORTIONS,
    UNIT_ERRORS,
    Counts,
    best_bound,
    counts_of,
    evidence_size,
    name_cases,
)
from medvision.validation.wording import interval, label, shown

# What medvision does something about, or what is no fault; whatever else an audit finds is not handled.
_HANDLED = ("note", "warning", "leak")
_NOTES = ("note",)


@dataclass(frozen=True)
class Claim:
    """One figure, of one class or of all (None), and what a policy asks of it."""

    rule: str
    what: str
    name: str
    class_name: str | None
    required: float
    found: Figure | None


def hold(evaluation: Evaluation, policy: Policy, evidence: Evidence) -> Iterator[RuleOutcome]:
    """Hold everything that a policy asks for against the evidence, and yield each outcome."""
    for objection in evidence.objections:
        yield _plain(f"evidence.{objection.what}", False, objection.message, objection.remedy)
    counts = counts_of(evaluation)
    yield from (_hold_value(claim) for claim in _claims(evaluation, policy, "value"))
    yield from (_hold_bound(claim, counts) for claim in _claims(evaluation, policy, "bound"))
    yield from (_hold_ceiling(claim, counts) for claim in _ceilings(evaluation, policy))
    yield from _hold_champion(evaluation, policy, evidence)
    yield from _hold_subgroups(policy, evidence)
    yield from _hold_latency(policy, evidence)
    yield from _hold_audit(evaluation, policy, evidence)


def _claims(evaluation: Evaluation, policy: Policy, kind: Literal["value", "bound"]) -> Iterator[Claim]:
    by_name = {figures.name: figures for figures in evaluation.per_class}
    # An evaluation without classes must fail the rule of every class, not escape it.
    classes = evaluation.classes or policy.rules.critical or ("every class",)
    # What is said of all classes comes first.
    for name in sorted(Minimums.model_fields, key=ClassMinimums.model_fields.__contains__):
        if name not in ClassMinimums.model_fields:
            required = getattr(getattr(policy.rules, kind), name)
            if required is not None:
                found = getattr(evaluation.overall, name)
                yield Claim(f"{kind}.{name}", label(name), name, None, required, found)
            continue
        for of in classes:
            required = policy.rules.minimum(kind, name, of)
            if required is not None:
                found = getattr(by_name.get(of), name, None)
                yield Claim(f"{kind}.{name}.{of}", f"{label(name)} of {of}", name, of, required, found)


def _ceilings(evaluation: Evaluation, policy: Policy) -> Iterator[Claim]:
    for name in Ceilings.model_fields:
        allowed = getattr(policy.rules.ceiling, name)
        if allowed is not None:
            yield Claim(f"ceiling.{name}", label(name), name, None, allowed, getattr(evaluation.overall, name))


def _hold_value(claim: Claim) -> RuleOutcome:
    figure, required = claim.found, claim.required
    if figure is None or figure.value is None or not _is_sound(figure) or not 0 <= figure.value <= 1:
        return _unusable(claim.rule, claim.what, f"{required:.3f}", required, figure, "value")
    met = figure.value >= required
    message = (
        f"{claim.what}: {shown(figure.value, required, met)}{interval(figure)} {'meets' if met else 'is below'} the "
        f"required {required:.3f}"
    )
    remedy = "" if met else remedies.of_value(claim.what, required, figure)
    state: State = "passed" if met else "failed"
    return RuleOutcome(claim.rule, state, required, figure.value, figure.low, figure.high, message, remedy)


def _hold_bound(claim: Claim, counts: Counts) -> RuleOutcome:
    figure, required = claim.found, claim.required
    if figure is None or figure.bound is None or not _is_sound(figure) or not 0 <= figure.bound <= 1:
        return _unusable(claim.rule, f"lower bound of the {claim.what}", f"{required:.3f}", required, figure, "bound")
    n, met = evidence_size(claim.name, counts, claim.class_name), figure.bound >= required
    is_refuted = figure.high is not None and figure.high < required
    state = _state(met, is_hopeless=best_bound(n) < required, is_refuted=is_refuted)
    message = (
        f"lower bound of the {claim.what}: {shown(figure.bound, required, met)} (value {figure.value:.3f}"
        f"{interval(figure, ', ')}) {'meets' if met else 'is below'} the required {required:.3f}"
    )
    if state == "insufficient_evidence" and claim.name in PROPORTIONS:
        message += f"; {n} {counts.unit} show {best_bound(n):.3f} at most"
    cases = name_cases(claim.name, claim.class_name, counts)
    remedy = "" if met else remedies.of_bound(state, required, figure, n, cases)
    return RuleOutcome(claim.rule, state, required, figure.bound, figure.low, figure.high, message, remedy)


def _hold_ceiling(claim: Claim, counts: Counts) -> RuleOutcome:
    figure, allowed = claim.found, claim.required
    if figure is None or figure.bound is None or not _is_sound(figure) or figure.bound < 0:
        return _unusable(
            claim.rule, f"upper bound of the {claim.what}", f"at most {allowed:.3f}", allowed, figure, "bound"
        )
    n, met = evidence_size(claim.name, counts), figure.bound <= allowed
    is_hopeless = claim.name in UNIT_ERRORS and 1 - best_bound(n) > allowed
    state = _state(met, is_hopeless=is_hopeless, is_refuted=figure.value is None or figure.value > allowed)
    message = (
        f"upper bound of the {claim.what}: {shown(figure.bound, allowed, met)} (value {figure.value:.3f}"
        f"{interval(figure, ', ')}) {'is within' if met else 'is above'} the allowed {allowed:.3f}"
    )
    cases = name_cases(claim.name, None, counts)
    remedy = "" if met else remedies.of_ceiling(state, claim.what, allowed, n, cases)
    return RuleOutcome(claim.rule, state, allowed, figure.bound, figure.low, figure.high, message, remedy)


def _hold_champion(evaluation: Evaluation, policy: Policy, evidence: Evidence) -> Iterator[RuleOutcome]:
    asked, comparison = policy.rules.non_inferiority, evidence.comparison
    if asked is None:
        return
    rule, what, allowed = (
        f"non_inferiority.{asked.figure}",
        f"{label(asked.figure)} minus the champion's",
        -asked.margin,
    )
    if comparison is not None and comparison.champion_digest is None:
        yield _plain(rule, True, f"{what}: the registry has no champion to be compared with", "")
        return
    if comparison is not None and comparison.champion_digest == evaluation.package_digest:
        yield _plain(rule, True, f"{what}: it is the champion itself", "")
        return
    if comparison is not None and comparison.obstacle is not None:
        yield _plain(rule, False, f"{what}: {comparison.obstacle.message}", comparison.obstacle.remedy)
        return
    figure = None if comparison is None else comparison.difference
    if figure is None or figure.bound is None or not _is_sound(figure):
        yield _unusable(rule, f"lower bound of the {what}", f"more than {allowed:.3f}", allowed, figure, "bound")
        return
    met = figure.bound > allowed
    message = (
        f"{what} on the same cases: {figure.value:+.3f}{interval(figure)}, its lower bound {figure.bound:+.3f} "
        f"{'is' if met else 'is not'} above {allowed:+.3f}"
    )
    remedy = "" if met else remedies.of_comparison(label(asked.figure), asked.margin, figure)
    state: State = "passed" if met else "failed"
    yield RuleOutcome(rule, state, allowed, figure.bound, figure.low, figure.high, message, remedy)


def _hold_subgroups(policy: Policy, evidence: Evidence) -> Iterator[RuleOutcome]:
    floor, groups = policy.rules.subgroup_floor, evidence.subgroups
    if floor is None:
        return
    rule, what = f"subgroup_floor.{floor.figure}", label(floor.figure)
    if groups is None:
        yield _unusable(rule, f"{what} by subgroup", f"{floor.minimum:.3f}", floor.minimum)
        return
    for column in floor.columns:
        if not any(group.column == column for group in groups):
            message = f"{what} by {column}: the dataset has no column {column!r}, so that no subgroup was assessed"
            yield _plain(f"{rule}.{column}", False, message, f"Add {column!r} to the dataset, or use another policy.")
    for group in groups:
        if group.n >= floor.at_least:
            claim = Claim(
                f"{rule}.{group.name}", f"{what} in {group.name}", "accuracy", None, floor.minimum, group.figure
            )
            yield _hold_bound(claim, Counts({}, group.n, "cases"))
    small = [f"{group.name} ({group.n})" for group in groups if group.n < floor.at_least]
    if small:
        listed = f"subgroups of fewer than {floor.at_least} cases were not assessed: {', '.join(small)}"
        yield _plain(f"{rule}.not assessed", True, listed, "")


def _hold_latency(policy: Policy, evidence: Evidence) -> Iterator[RuleOutcome]:
    rule, allowed, found = "latency_p95_ms", policy.rules.latency_p95_ms, evidence.latency_p95_ms
    if allowed is None:
        return
    if found is None or not math.isfinite(found) or found <= 0:
        yield _unusable(rule, "95th percentile of the latency", f"at most {allowed:g} ms", allowed)
        return
    met = found <= allowed
    message = f"95 of 100 single images are answered in {found:.1f} ms, {allowed:g} ms are allowed"
    mend = "Choose a smaller model or image size, or validate on the hardware that will answer, free of other work."
    remedy = "" if met else mend
    yield RuleOutcome(rule, "passed" if met else "failed", allowed, found, None, None, message, remedy)


def _hold_audit(evaluation: Evaluation, policy: Policy, evidence: Evidence) -> Iterator[RuleOutcome]:
    asked, audit = policy.rules.audit, evidence.audit
    if asked is None:
        return
    if audit is None or audit.split_fingerprint != evaluation.split_fingerprint:
        yield _plain("audit", False, "audit: there is none of this dataset and split", "Run: medvision audit")
        return
    tolerated = _HANDLED if asked == "clean-or-handled" else _NOTES
    unhandled = [finding.message for finding in audit.findings if finding.severity not in tolerated]
    n_handled = sum(finding.severity not in _NOTES for finding in audit.findings)
    if unhandled:
        yield _plain("audit", False, f"audit: {' '.join(unhandled)}", "Mend the images or labels that audit.txt names.")
    else:
        yield _plain("audit", True, f"audit: {_handled(n_handled)}", "")


def _state(met: bool, *, is_hopeless: bool, is_refuted: bool) -> State:
    return "passed" if met else "insufficient_evidence" if is_hopeless and not is_refuted else "failed"


def _handled(n: int) -> str:
    if n == 0:
        return "nothing was found that had to be handled"
    return "1 finding, handled" if n == 1 else f"{n} findings, all handled"


def _unusable(
    rule: str,
    what: str,
    asked: str,
    required: float,
    figure: Figure | None = None,
    part: Literal["value", "bound"] = "value",
) -> RuleOutcome:
    """Return the outcome of a rule whose figure, or the part of it that is asked for, is missing or is no number."""
    if figure is None:
        found, remedy = "missing or not a number", remedies.MISSING
    elif getattr(figure, part) is None:
        found, remedy = f"missing ({figure.method})" if figure.method else "missing", remedies.MISSING
    else:
        numbers = f"value {figure.value}, 95 % CI {figure.low} to {figure.high}, bound {figure.bound}"
        found, remedy = f"{numbers} are not the numbers of a figure", remedies.UNSOUND
    message = f"{what}: {found}; {asked} is required"
    return RuleOutcome(rule, "failed", required, None, None, None, message, remedy)


def _plain(rule: str, met: bool, message: str, remedy: str) -> RuleOutcome:
    return RuleOutcome(rule, "passed" if met else "failed", None, None, None, None, message, remedy)


def _is_sound(figure: Figure) -> bool:
    """Tell whether a figure has a value, and no number in it is NaN or infinite."""
    numbers = (figure.value, figure.low, figure.high, figure.bound)
    return figure.value is not None and all(number is None or math.isfinite(number) for number in numbers)
