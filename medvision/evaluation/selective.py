"""Answering only where the model is sure: what is gained in accuracy, and what it costs in answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medvision.evaluation.intervals import proportion
from medvision.records import Abstention, Figure, Selection


@dataclass(frozen=True)
class RiskCoverage:
    """Share of cases answered, and share of errors among them, at each confidence that occurs, from the highest down.

    ``aurc`` is the mean risk over the cases' own confidences (Geifman, Uziel and El-Yaniv, ICLR 2019), ``excess_aurc``
    what of it a perfect ordering of the same errors would spare.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    aurc: float
    excess_aurc: float


def risk_coverage(y_true: np.ndarray, y_score: np.ndarray) -> RiskCoverage:
    """Return the risk-coverage curve by the highest score; cases of equal confidence are answered together.

    ``y_true`` (n,), ``y_score`` (n, k), n >= 1.
    """
    confidence, is_right = _answers(y_true, y_score)
    threshold, place, cases = np.unique(-confidence, return_inverse=True, return_counts=True)
    answered, errors = np.cumsum(cases), np.cumsum(np.bincount(place, ~is_right))
    risk = errors / answered
    n = len(y_true)
    aurc = float(risk @ cases / n)
    rank = np.arange(1, n + 1)
    best = np.maximum(rank - is_right.sum(), 0) / rank
    return RiskCoverage(-threshold, answered / n, risk, aurc, aurc - float(best.mean()))


def select_at_coverage(
    y_true: np.ndarray, y_score: np.ndarray, groups: np.ndarray | None, coverage: float
) -> Selection:
    """Return what comes of answering the most confident share ``coverage``, in (0, 1], of all cases.

    Cases of equal confidence are answered together: the share may be larger.

    Parameters
    ----------
    y_true: class indices (n,), n >= 1. y_score: (n, k); the highest score is the confidence.
    groups: patient of each case (n,), None where unknown.
    """
    confidence, is_right = _answers(y_true, y_score)
    return _select(confidence, is_right, groups, _threshold(confidence, coverage))


def abstain_by_sets(y_true: np.ndarray, sets: np.ndarray, groups: np.ndarray | None) -> Abstention:
    """Return what comes of answering only where the prediction set holds one class, and of naming that class.

    ``y_true`` (n,), ``sets`` bool (n, k) as ``prediction_sets`` makes them, ``groups`` (n,) or None; n >= 1.
    """
    answered, is_right = sets.sum(axis=1) == 1, sets.argmax(axis=1) == y_true
    classes = [y_true == c for c in range(sets.shape[1])]
    return Abstention(
        abstained=proportion(~answered, groups),
        accuracy=_among(answered, is_right, groups),
        abstained_per_class=tuple(_among(is_class, ~answered, groups) for is_class in classes),
        accuracy_per_class=tuple(_among(is_class & answered, is_right, groups) for is_class in classes),
    )


def _answers(y_true: np.ndarray, y_score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return y_score.max(axis=1), y_score.argmax(axis=1) == y_true


def _threshold(confidence: np.ndarray, coverage: float) -> float:
    # 0.35 * 20 is a hair above 7.
    answered = math.ceil(coverage * len(confidence) - 1e-9)
    return float(np.sort(confidence)[-answered])


def _select(confidence: np.ndarray, is_right: np.ndarray, groups: np.ndarray | None, threshold: float) -> Selection:
    answered = confidence >= threshold
    return Selection(threshold, proportion(answered, groups), _among(answered, is_right, groups))


def _among(cases: np.ndarray, is_true: np.ndarray, groups: np.ndarray | None) -> Figure:
    return proportion(is_true[cases], None if groups is None else groups[cases])
