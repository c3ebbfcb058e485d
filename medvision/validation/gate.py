"""The gate: holds an evaluation against the policy, rule by rule and class by class, and says why.

A figure that is missing, None, NaN or infinite fails its rule; an evaluation of another model package or of another
split is no evidence and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from medvision.errors import FingerprintMismatch
from medvision.records import Evaluation, Proportion, RuleOutcome, Verdict, record_fingerprint
from medvision.validation.policy import Policy, check_class_names, policy_fingerprint

Figure = Proportion | float | None


def judge(evaluation: Evaluation, policy: Policy, *, package_digest: str, split_fingerprint: str) -> Verdict:
    """Judge the package at hand, named by its digest, from its evaluation on the test split of ``split_fingerprint``.

    Raises
    ------
    FingerprintMismatch: the evaluation is of another package or of another split.
    ConfigInvalid: the policy has rules for a class that the model does not know.
    """
    _check_same("model package", evaluation.package_digest, package_digest)
    _check_same("test split", evaluation.split_fingerprint, split_fingerprint)
    check_class_names(policy, evaluation.classes)
    outcomes = (*_overall(evaluation, policy), *_per_class(evaluation, policy))
    return Verdict(
        model=evaluation.model,
        passed=all(outcome.passed for outcome in outcomes),
        package_digest=package_digest,
        split_fingerprint=split_fingerprint,
        policy_fingerprint=policy_fingerprint(policy),
        evaluation_fingerprint=record_fingerprint(evaluation),
        outcomes=outcomes,
    )


def render_text(verdict: Verdict) -> str:
    """Return the verdict as text: the decision, then every rule with what was found."""
    failed = sum(not outcome.passed for outcome in verdict.outcomes)
    summary = "every rule is met" if verdict.passed else f"{failed} of {len(verdict.outcomes)} rules are not met"
    lines = [f"{verdict.model}: {'PASSED' if verdict.passed else 'FAILED'}, {summary}", ""]
    lines += [f"  {'passed' if outcome.passed else 'FAILED'}  {outcome.message}" for outcome in verdict.outcomes]
    lines += ["", f"  model package {verdict.package_digest}", f"  test split    {verdict.split_fingerprint}"]
    lines += [f"  policy        {verdict.policy_fingerprint}", f"  evaluation    {verdict.evaluation_fingerprint}"]
    return "\n".join(lines) + "\n"


def _check_same(what: str, evaluated: str, at_hand: str) -> None:
    if evaluated != at_hand:
        raise FingerprintMismatch(
            f"Expected an evaluation of the {what} at hand ({at_hand[:12]}), found one of {evaluated[:12]}. "
            "Run evaluate again, then validate."
        )


def _overall(evaluation: Evaluation, policy: Policy) -> Iterator[RuleOutcome]:
    for rule in ("accuracy", "balanced_accuracy", "auroc"):
        required = getattr(policy, rule)
        if required is not None:
            label = "AUROC" if rule == "auroc" else rule.replace("_", " ")
            yield _outcome(rule, label, required, getattr(evaluation, rule))


def _per_class(evaluation: Evaluation, policy: Policy) -> Iterator[RuleOutcome]:
    by_name = {figures.name: figures for figures in evaluation.per_class}
    # An evaluation without classes must fail the rule of every class, not escape it.
    for name in evaluation.classes or ("every class",):
        for rule in ("sensitivity", "specificity"):
            required = policy.minimum(rule, name)
            if required is not None:
                yield _outcome(f"{rule}.{name}", f"{rule} of {name}", required, getattr(by_name.get(name), rule, None))


def _outcome(rule: str, label: str, required: float, figure: Figure) -> RuleOutcome:
    value = figure.value if isinstance(figure, Proportion) else figure
    if value is None or not math.isfinite(value):
        message = f"{label}: missing or not a number, {required:.3f} is required"
        return RuleOutcome(rule, required, None, False, message)
    passed = value >= required
    relation = "meets" if passed else "is below"
    message = f"{label}: {_shown(value, required, passed)}{_evidence(figure)} {relation} the required {required:.3f}"
    return RuleOutcome(rule, required, value, passed, message)


def _shown(value: float, required: float, passed: bool) -> str:
    rounded = f"{value:.3f}"
    # "0.850 is below the required 0.850" would help nobody.
    return rounded if passed or rounded != f"{required:.3f}" else repr(value)


def _evidence(figure: Figure) -> str:
    if not isinstance(figure, Proportion):
        return ""
    return f" (95 % CI {figure.low:.2f}-{figure.high:.2f}, {figure.successes} of {figure.n})"
