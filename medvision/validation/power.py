"""How many cases a policy needs: what the bound of a model without a fault can reach.

Counts are of patients where they are known and of images where they are not, as in the intervals. One-sided 95 %
bounds are those of Clopper and Pearson; of n cases, all right, it is 0.05 ** (1 / n).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from medvision.evaluation.intervals import LEVEL
from medvision.evaluation.operating_point import patients_needed
from medvision.records import Evaluation
from medvision.validation.policy import Policy, check_class_names
from medvision.validation.wording import label

# Shares of cases, whose bound is never above that of the same number of cases all right. The bounds of other figures
# have no such limit, except where there is no fault at all.
PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
# Errors in [0, 1]: of a model without a fault on n cases their bound is 1 - that of the proportions.
UNIT_ERRORS = ("ece", "classwise_ece")
# More cases than any test set has; beyond it, "at this rate" is no advice.
_MOST = 20_000


@dataclass(frozen=True)
class Counts:
    """Independent cases of each class and of all together; ``unit`` is patients or images.

    A patient with images of two classes is a case of both, and one of all together.
    """

    per_class: Mapping[str, int]
    total: int
    unit: str


def counts_of(evaluation: Evaluation) -> Counts:
    """Return the counts behind an evaluation."""
    if evaluation.n_patients is None:
        return Counts({figures.name: figures.n for figures in evaluation.per_class}, evaluation.n, "images")
    per_class = {figures.name: figures.n_patients or 0 for figures in evaluation.per_class}
    return Counts(per_class, evaluation.n_patients, "patients")


def best_bound(n: int) -> float:
    """Return the lower bound that n cases show if all of them are right."""
    return (1 - LEVEL) ** (1 / n) if n > 0 else 0.0


def cases_needed_at(value: float, minimum: float) -> int | None:
    """Return the first number of cases whose bound reaches a minimum if the share ``value`` of them is right.

    None if the share is not above the minimum, or more than 20,000 cases would be needed.
    """
    from scipy.special import betaincinv

    if value <= minimum:
        return None
    n = np.arange(1, _MOST + 1)
    right = np.round(value * n)
    bounds = np.where(right > 0, betaincinv(np.maximum(right, 1), n - right + 1, 1 - LEVEL), 0.0)
    reached = np.flatnonzero(bounds >= minimum)
    return int(n[reached[0]]) if len(reached) else None


def evidence_size(figure: str, counts: Counts, class_name: str | None = None) -> int:
    """Return on how many cases the bound of a figure rests if the model makes no mistake."""
    if class_name is not None:
        cases = counts.per_class.get(class_name, 0)
        others = min(counts.total, sum(counts.per_class.values()) - cases)
        if figure in ("sensitivity", "ppv"):
            return cases
        if figure in ("specificity", "npv"):
            return others
        # Of pairs of a case and another, each of two patients, as in ``intervals.certain``.
        return min(cases, others, counts.total // 2)
    if figure == "accuracy":
        return counts.total
    return min((evidence_size("auroc", counts, name) for name in counts.per_class), default=0)


def name_cases(figure: str, class_name: str | None, counts: Counts) -> str:
    """Return what the cases are called that the bound of a figure rests on."""
    if class_name is None:
        return counts.unit if figure == "accuracy" else f"{counts.unit} of the rarest class"
    return f"{counts.unit} without {class_name}" if figure in ("specificity", "npv") else f"{class_name} {counts.unit}"


def find_unattainable(policy: Policy, counts: Counts) -> list[str]:
    """Return a message for each rule that no model at all can meet on a test split with these cases; [] if none.

    Raises ConfigInvalid if the policy speaks of a class that is not among them.
    """
    check_class_names(policy, list(counts.per_class))
    return [
        f"Policy {policy.name} asks for a 95 % bound of {minimum:g} on the {label(figure)}"
        f"{f' of {name}' if name else ''}: {n} {name_cases(figure, name, counts)} can't show it, whatever the model. "
        f"{_needed(minimum)}"
        for figure, name, minimum in _bounds(policy, list(counts.per_class))
        if best_bound(n := evidence_size(figure, counts, name)) < minimum
    ]


def _bounds(policy: Policy, classes: list[str]) -> Iterator[tuple[str, str | None, float]]:
    """Yield figure, class and minimum of every rule on the bound of a proportion."""
    for figure in PROPORTIONS:
        for name in [None] if figure == "accuracy" else classes:
            minimum = policy.rules.minimum("bound", figure, name) if name else policy.rules.bound.accuracy
            if minimum is not None:
                yield figure, name, minimum


def _needed(minimum: float) -> str:
    if minimum >= 1:
        return "No number does: lower the minimum."
    return f"At least {patients_needed(minimum)} are needed in the test split."
