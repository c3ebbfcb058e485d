"""Whether acting on a model does more good than acting on everybody, or on nobody (Vickers and Elkin 2006)."""

from __future__ import annotations

import numpy as np

from medvision.evaluation.bootstrap import draw_weights, most_frequent_class
from medvision.records import DecisionCurve, Plan

THRESHOLDS = np.arange(1, 100) / 100
_ODDS = THRESHOLDS / (1 - THRESHOLDS)
# Of weights drawn at a time: makes memory independent of the replicates.
_BLOCK = 1 << 19


def decision_curve(
    class_name: str, is_class: np.ndarray, score: np.ndarray, units: np.ndarray, plan: Plan
) -> DecisionCurve:
    """Return the net benefit of calling a class where its score is at least 0.01, 0.02 ... 0.99.

    Net benefit is TP / n - FP / n * pt / (1 - pt) (Vickers and Elkin, Med Decis Making 2006): who acts from the
    probability pt on holds one case missed as bad as (1 - pt) / pt cases treated for nothing. The band is the
    percentile bootstrap by patient at each threshold, not over all of them at once, and at the prevalence of these
    cases.

    Parameters
    ----------
    is_class, score: truth and calibrated probability of the class, (n,), n >= 1.
    units: patient of each case (n,), or the case itself where patients are unknown.
    """
    _, units = np.unique(units, return_inverse=True)
    benefit = _calls(units[is_class], score[is_class], units.max() + 1)
    benefit -= _calls(units[~is_class], score[~is_class], units.max() + 1) * _ODDS
    low, high = _band(benefit, units, is_class, plan)
    prevalence = float(is_class.mean())
    return DecisionCurve(
        class_name=class_name,
        thresholds=tuple(THRESHOLDS.tolist()),
        net_benefit=tuple((benefit.sum(axis=0) / len(score)).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        treat_all=tuple((prevalence - (1 - prevalence) * _ODDS).tolist()),
    )


def _calls(units: np.ndarray, score: np.ndarray, n_units: int) -> np.ndarray:
    """Count the cases of each unit that are called at each threshold, (n_units, thresholds)."""
    places = len(THRESHOLDS) + 1
    reached = np.searchsorted(THRESHOLDS, score, side="right")
    counts = np.bincount(units * places + reached, minlength=n_units * places).reshape(n_units, places)
    return counts[:, :0:-1].cumsum(axis=1)[:, ::-1].astype(np.float64)


def _band(benefit: np.ndarray, units: np.ndarray, is_class: np.ndarray, plan: Plan) -> np.ndarray:
    images = np.bincount(units).astype(np.float64)
    strata = most_frequent_class(is_class.astype(np.int64), units, 2)
    blocks = draw_weights(strata, plan, max(1, _BLOCK // len(images)))
    draws = [(weights @ benefit) / (weights @ images)[:, None] for weights in blocks]
    return np.quantile(np.concatenate(draws), [0.025, 0.975], axis=0)
