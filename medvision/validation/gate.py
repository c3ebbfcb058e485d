"""The gate: holds an evaluation against a policy and makes the verdict; the rules themselves are in ``rules``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from medvision.files import fingerprint
from medvision.records import Evaluation, Grade, RuleOutcome, State, Verdict, as_dict
from medvision.validation.evidence import Evidence
from medvision.validation.policy import Grades, Policy, check_class_names
from medvision.validation.rules import hold


def judge(evaluation: Evaluation, policy: Policy, evidence: Evidence) -> Verdict:
    """Judge a model package by its evaluation on the test split and by what else is known of it.

    Raises ConfigInvalid if the policy speaks of a class that the model does not know.
    """
    if evaluation.classes:
        check_class_names(policy, evaluation.classes)
    outcomes = tuple(hold(evaluation, policy, evidence))
    state = _decide(outcomes)
    comparison = evidence.comparison
    return Verdict(
        model=evaluation.model,
        dataset=evaluation.dataset,
        state=state,
        grade=_grade(evaluation, policy.grades, state),
        policy=policy.name,
        package_digest=evaluation.package_digest,
        split_fingerprint=evaluation.split_fingerprint,
        test_fingerprint=evidence.test_fingerprint,
        policy_fingerprint=policy.fingerprint,
        evaluation_fingerprint=evaluation_fingerprint(evaluation),
        predictions_sha256=evaluation.predictions_sha256,
        champion_digest=None if comparison is None else comparison.champion_digest,
        n=evaluation.n,
        n_patients=evaluation.n_patients,
        figures=_key_figures(evaluation),
        looks=evidence.usage.looks,
        models_seen=evidence.usage.models,
        ledger_head=evidence.usage.head,
        made_at=evidence.made_at,
        outcomes=outcomes,
    )


def evaluation_fingerprint(evaluation: Evaluation) -> str:
    """Return the fingerprint of an evaluation, of figures to nine digits: the tenth is another processor's."""
    return fingerprint(_finite(as_dict(evaluation), digits=9))


def _decide(outcomes: Iterable[RuleOutcome]) -> State:
    states = {outcome.state for outcome in outcomes}
    # Nothing that was judged is no reason to pass.
    if "failed" in states or not states:
        return "failed"
    return "insufficient_evidence" if "insufficient_evidence" in states else "passed"


def _grade(evaluation: Evaluation, grades: Grades, state: State) -> Grade:
    """Grade by the lower one of accuracy and balanced accuracy, so that a frequent class can't hide a rare one."""
    values = [evaluation.overall.accuracy.value, evaluation.overall.balanced_accuracy.value]
    weakest = min(value if value is not None and math.isfinite(value) else 0.0 for value in values)
    if state == "failed" or weakest < grades.good:
        return "needs improvement"
    return "excellent" if weakest >= grades.excellent else "good"


def _key_figures(evaluation: Evaluation) -> dict[str, float | None]:
    overall = {name: figure["value"] for name, figure in as_dict(evaluation.overall).items()}
    per_class = {
        f"{name}.{figures.name}": getattr(figures, name).value
        for figures in evaluation.per_class
        for name in ("sensitivity", "specificity")
    }
    found: dict[str, float | None] = _finite({**overall, **per_class})
    return found


def _finite(value: Any, digits: int = 17) -> Any:
    """Return JSON-like values with None in place of what is no number, which JSON could not hold."""
    if isinstance(value, dict):
        return {key: _finite(each, digits) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each, digits) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
