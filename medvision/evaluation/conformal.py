"""Prediction sets that hold the true class with a stated probability, for each class (split conformal prediction)."""

from __future__ import annotations

import numpy as np

from medvision.errors import DataInvalid
from medvision.evaluation.intervals import proportion
from medvision.records import Conformal, ConformalFigures


def fit_conformal(y_true: np.ndarray, y_score: np.ndarray, units: np.ndarray, coverage: float) -> Conformal:
    """Return each class's threshold, so that a new case's set holds its true class with probability ``coverage``.

    Split LAC within each class (Sadinle, Lei and Wasserman, JASA 2019; Vovk 2012). With patients the promise is made
    for a random image of a new patient: each image has the weight 1 / (images of its patient in the class), and the new
    patient's own weight stands at the side of what has not been seen (hierarchical conformal prediction; Lee, Barber
    and Willett 2023). A class with fewer than ``1 / (1 - coverage) - 1`` val patients has the threshold 0.

    Parameters
    ----------
    y_true: class indices (n,). y_score: probabilities (n, k), taken as float32, as packages give them.
    units: patient of each image (n,), or the image itself.
    coverage: in (0, 1).

    Raises
    ------
    DataInvalid: a coverage outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise DataInvalid(
            f"Expected a coverage between 0 and 1, found {coverage}. Set evaluation.coverage to 0.9, say."
        )
    y_score = np.asarray(y_score, np.float32)
    fitted = [_fit_class(y_score[y_true == c, c], units[y_true == c], coverage) for c in range(y_score.shape[1])]
    return Conformal(coverage, tuple(threshold for threshold, _ in fitted), tuple(n for _, n in fitted))


def prediction_sets(y_score: np.ndarray, conformal: Conformal) -> np.ndarray:
    """Return which classes are in each case's set, bool (n, k), for probabilities (n, k), compared in float32."""
    return np.asarray(y_score, np.float32) >= np.array(conformal.thresholds, np.float32)


def conformal_figures(
    conformal: Conformal, y_true: np.ndarray, y_score: np.ndarray, groups: np.ndarray | None
) -> ConformalFigures:
    """Return what the prediction sets do on test: coverage of each class, and how large the sets are.

    ``y_true`` (n,), ``y_score`` (n, k), ``groups`` (n,) or None; n >= 1.
    """
    sets = prediction_sets(y_score, conformal)
    sizes = sets.sum(axis=1)
    return ConformalFigures(
        coverage=conformal.coverage,
        per_class=tuple(
            proportion(sets[y_true == c, c], None if groups is None else groups[y_true == c])
            for c in range(sets.shape[1])
        ),
        mean_set_size=float(sizes.mean()),
        empty=proportion(sizes == 0, groups),
        single=proportion(sizes == 1, groups),
        several=proportion(sizes > 1, groups),
    )


def conformal_quantile(values: np.ndarray, units: np.ndarray, coverage: float) -> float:
    """Return the least value that one of a new unit is at or below with probability ``coverage``, infinity if none is.

    An image has the weight 1 / (images of its unit), and the new unit's own weight stands beyond what has been seen, so
    that m units can show a coverage of m / (m + 1) at most.

    Parameters
    ----------
    values: (n,), n >= 1. units: patient of each image (n,), or the image itself.
    """
    _, codes, images = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(values)
    reached = np.cumsum(1 / images[codes[order]])
    # Sums of thirds and tenths are off in the last digits.
    within = reached >= coverage * (len(images) + 1) - 1e-9
    return float(values[order][within][0]) if within.any() else float("inf")


def _fit_class(score: np.ndarray, patients: np.ndarray, coverage: float) -> tuple[float, int]:
    # 0, which every score reaches, where there are too few patients.
    lowest = -conformal_quantile(-score, patients, coverage) if len(score) else 0.0
    return max(lowest, 0.0), len(np.unique(patients))
