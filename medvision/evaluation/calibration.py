"""Whether a score may be taken for a probability: the temperature fitted on val, and the reliability diagram."""

from __future__ import annotations

import math

import numpy as np

from medvision.errors import DataInvalid
from medvision.evaluation.figures import place_in_bins
from medvision.evaluation.intervals import proportion
from medvision.records import Reliability, ReliabilityBin

# Wide enough for any network; at either end scores say no more than right or wrong, or nothing at all.
TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: np.ndarray, y_true: np.ndarray) -> float:
    """Return the temperature by which logits are divided for the smallest NLL (Guo et al., ICML 2017).

    Every image counts once, as in the NLL and ECE that are reported on test: images of one patient make the estimate
    less precise, but not biased. Where every case is right, as in a split of one row, NLL falls without end as scores
    are sharpened and says nothing of how sure they may be: the temperature is 1 then.

    Parameters
    ----------
    logits: (n, k), finite; log probabilities serve as well.
    y_true: class indices (n,).

    Raises
    ------
    DataInvalid: no cases, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, dtype=np.float64)
    if len(logits) == 0 or not np.isfinite(logits).all():
        raise DataInvalid(
            f"A temperature needs finite logits of at least one val case; found {len(logits)} cases, "
            f"{np.sum(~np.isfinite(logits))} values not finite. Give val cases of every class, and train again if "
            "the weights are damaged."
        )
    of_truth = np.take_along_axis(logits, np.asarray(y_true)[:, None], axis=1)
    gaps = logits - of_truth
    if gaps.max() <= 0:
        return 1.0
    # NLL is convex in 1 / T, so that it has one minimum in log T as well.
    fitted = minimize_scalar(
        lambda log_t: _nll(gaps / math.exp(log_t)),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(fitted.x)


def reliability(y_true: np.ndarray, y_score: np.ndarray, groups: np.ndarray | None) -> Reliability:
    """Return the bins of the reliability diagram, of the predicted class and of each class against all others.

    ``y_true`` (n,), ``y_score`` (n, k), ``groups`` (n,) or None; n >= 1. The bins are those behind the ECE: 15 of equal
    mass, in which equal scores stand together, so that a coarse score fills fewer.
    """
    confidence, is_right = y_score.max(axis=1), y_score.argmax(axis=1) == y_true
    return Reliability(
        top_label=_bins(confidence, is_right, groups),
        per_class=tuple(_bins(y_score[:, c], y_true == c, groups) for c in range(y_score.shape[1])),
    )


def _nll(gaps: np.ndarray) -> float:
    from scipy.special import logsumexp

    return float(logsumexp(gaps, axis=1).mean())


def _bins(score: np.ndarray, is_event: np.ndarray, groups: np.ndarray | None) -> tuple[ReliabilityBin, ...]:
    places = place_in_bins(score)
    members = [places == place for place in np.unique(places)]
    return tuple(
        ReliabilityBin(
            float(score[cases].mean()), proportion(is_event[cases], None if groups is None else groups[cases])
        )
        for cases in members
    )
