"""Which of several models is better, on the same cases: paired, by patient, and with multiplicity stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from medvision.evaluation.intervals import delong
from medvision.evaluation.paired import Draws, check_same_cases, difference, draw, p_value
from medvision.evaluation.predictions import Predictions
from medvision.records import PairComparison, Plan

FIGURES = ("accuracy", "balanced_accuracy", "auroc")
TESTS = (*FIGURES, "mcnemar", "delong")

_Model = tuple[str, Predictions]


def compare_models(models: Sequence[_Model], plan: Plan) -> tuple[PairComparison, ...]:
    """Compare every pair of models by the paired bootstrap of their differences, McNemar's test and DeLong's.

    The bootstrap draws the same patients for both models. McNemar: exact where patients are unknown, else on the sums
    of each patient (Obuchowski, Stat Med 1998; Yang et al., Biometrical Journal 2010). DeLong: of the AUROC of two
    classes where patients are unknown, since it counts images. P values are two-sided, and adjusted for the number of
    pairs by Holm (Scand J Stat 1979), each figure and test by itself; a test that does not apply to a pair is left out.

    Raises DataInvalid if the models were not scored on the same cases in the same order.
    """
    for name, predictions in models[1:]:
        check_same_cases(name, predictions, *models[0])
    draws = {name: draw(predictions, plan) for name, predictions in models}
    found = [_compare(a, b, draws[a[0]], draws[b[0]]) for a, b in combinations(models, 2)]
    adjusted: list[dict[str, float]] = [{} for _ in found]
    for test in TESTS:
        tested = [i for i, pair in enumerate(found) if test in pair.p_values]
        for i, p in zip(tested, holm([found[i].p_values[test] for i in tested]), strict=True):
            adjusted[i][test] = p
    return tuple(replace(pair, adjusted_p_values=values) for pair, values in zip(found, adjusted, strict=True))


def mcnemar(a_right: np.ndarray, b_right: np.ndarray, groups: np.ndarray | None) -> float:
    """Return the two-sided p value that two models, right or wrong on the same cases (n,), are equally often right."""
    from scipy.stats import binomtest, chi2

    difference = a_right.astype(int) - b_right.astype(int)
    if groups is None:
        only_a, discordant = int((difference > 0).sum()), int((difference != 0).sum())
        return 1.0 if discordant == 0 else float(binomtest(only_a, discordant).pvalue)
    by_patient = np.bincount(groups, weights=difference)
    spread = float((by_patient**2).sum())
    return 1.0 if spread == 0 else float(chi2.sf(by_patient.sum() ** 2 / spread, 1))


def delong_test(y_true: np.ndarray, a_score: np.ndarray, b_score: np.ndarray) -> float | None:
    """Return the two-sided p value that two models have the same AUROC (DeLong et al., Biometrics 1988).

    ``y_true`` (n,) is True for cases; the scores (n,) are of the same independent images. The variance of the
    difference is that of the differences of the structural components. None where a difference has no variance.
    """
    from scipy.stats import norm

    a, b = delong(y_true, a_score), delong(y_true, b_score)
    if min(len(a.cases), len(a.others)) < 2:
        return None
    variance = sum(
        float((of_a - of_b).var(ddof=1)) / len(of_a) for of_a, of_b in ((a.cases, b.cases), (a.others, b.others))
    )
    difference = abs(a.auroc - b.auroc)
    if variance > 1e-15:
        return float(2 * norm.sf(difference / math.sqrt(variance)))
    return 1.0 if difference < 1e-12 else None


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p values adjusted for their number, in the same order (Holm, Scand J Stat 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return tuple(adjusted.tolist())


def _compare(a: _Model, b: _Model, of_a: Draws, of_b: Draws) -> PairComparison:
    first, second = a[1], b[1]
    p_values = {name: p_value(of_a, of_b, name) for name in FIGURES}
    p_values["mcnemar"] = mcnemar(first.y_pred == first.y_true, second.y_pred == second.y_true, first.groups)
    if len(first.classes) == 2 and first.groups is None:
        p_values["delong"] = delong_test(first.y_true == 1, first.y_score[:, 1], second.y_score[:, 1])
    return PairComparison(
        a[0],
        b[0],
        {name: difference(of_a, of_b, name) for name in FIGURES},
        {test: p for test, p in p_values.items() if p is not None},
        adjusted_p_values={},
    )
