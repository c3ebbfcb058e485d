"""Calibration slope and intercept: what would have to be done to the scores of a class to make them probabilities.

With x the logit of the score: the slope is b of logit P(case) = a + b x, below 1 where scores are too extreme (Cox,
Biometrika 1958). The intercept is calibration-in-the-large, a of logit P(case) = a + x, above 0 where scores are too
low (Van Calster et al., J Clin Epidemiol 2016): the a beside b would mix the two.
"""

from __future__ import annotations

import numpy as np

from medvision.evaluation.figures import PROBABILITY_FLOOR
from medvision.evaluation.intervals import Z_ONE_SIDED, Z, undefined
from medvision.records import Figure

_MAX_STEPS = 100
_SEPARATED = "not defined: the scores separate the class"
_ONE_SIDED = "not defined: no case, or no other"


def calibration_slope(is_case: np.ndarray, score: np.ndarray, groups: np.ndarray | None) -> Figure:
    """Return the slope with a Wald interval, its variance by the sandwich over patients; the bound is the lower one.

    Parameters
    ----------
    is_case, score: (n,) bool, and probabilities, clipped to [1e-7, 1 - 1e-7].
    groups: (n,) codes of patients; None takes each image by itself.

    Undefined where one cut of the score separates cases from others, or all scores are equal: no finite slope is the
    likeliest then (Albert and Anderson, Biometrika 1984). Undefined without a case, or without another.
    """
    if is_case.all() or not is_case.any():
        return undefined(_ONE_SIDED, len(score))
    x = _logit(score)
    if _is_separated(is_case, x):
        return undefined(_SEPARATED, len(score))
    design = np.stack([np.ones_like(x), x], axis=1)
    slope = _fit(design, is_case)
    if slope is None:
        return undefined("not defined: the fit did not converge", len(score))
    return _wald(slope[1], design, _expit(design @ slope), is_case, groups, harm=-1)


def calibration_intercept(is_case: np.ndarray, score: np.ndarray, groups: np.ndarray | None) -> Figure:
    """Return the intercept beside a slope of 1, as ``calibration_slope`` does; the bound is the upper one.

    Scores that are too low are those that let cases go. Undefined where the slope is: without an image on the wrong
    side, an intercept of saturated scores rests on their last digits.
    """
    from scipy.optimize import brentq

    if is_case.all() or not is_case.any():
        return undefined(_ONE_SIDED, len(score))
    x = _logit(score)
    if _is_separated(is_case, x):
        return undefined(_SEPARATED, len(score))
    # The mean of expit(a + x) rises with a; beyond 40 it is 0 or 1 whatever the score, which logit keeps within 17.
    intercept = float(brentq(lambda a: float(np.mean(_expit(a + x) - is_case)), -60, 60, xtol=1e-12))
    return _wald(intercept, np.ones((len(x), 1)), _expit(intercept + x), is_case, groups, harm=1)


def _is_separated(is_case: np.ndarray, x: np.ndarray) -> bool:
    cases, others = x[is_case], x[~is_case]
    return bool(cases.min() >= others.max() or others.min() >= cases.max())


def _fit(design: np.ndarray, is_case: np.ndarray) -> np.ndarray | None:
    """Maximise the likelihood by Newton's steps, halved where they overshoot; None without convergence."""
    beta = np.zeros(design.shape[1])
    for _ in range(_MAX_STEPS):
        p = _expit(design @ beta)
        step = np.linalg.solve(_information(design, p), design.T @ (is_case - p))
        if np.abs(step).max() < 1e-10:
            return beta
        likelihood = _log_likelihood(design, is_case, beta)
        while _log_likelihood(design, is_case, beta + step) < likelihood - 1e-12 * abs(likelihood):
            step = step / 2
        beta = beta + step
    return None


def _wald(
    value: float, design: np.ndarray, p: np.ndarray, is_case: np.ndarray, groups: np.ndarray | None, *, harm: int
) -> Figure:
    """Return the last coefficient with its cluster-robust interval (Liang and Zeger, Biometrika 1986), m / (m - 1)."""
    n = len(p)
    unit, codes = ("image", np.arange(n)) if groups is None else ("patient", np.unique(groups, return_inverse=True)[1])
    m = int(codes.max()) + 1
    if m == 1:
        return Figure(float(value), None, None, None, n, "no interval: one patient")
    scores = np.stack([np.bincount(codes, weights=part * (is_case - p)) for part in design.T], axis=1)
    spread = np.linalg.solve(_information(design, p), scores.T)[-1]
    error = float(np.sqrt(m / (m - 1) * (spread @ spread)))
    low, high, bound = (float(value + z * error) for z in (-Z, Z, harm * Z_ONE_SIDED))
    return Figure(float(value), low, high, bound, n, f"Wald, sandwich by {unit}")


def _information(design: np.ndarray, p: np.ndarray) -> np.ndarray:
    return design.T @ (design * (p * (1 - p))[:, None])


def _log_likelihood(design: np.ndarray, is_case: np.ndarray, beta: np.ndarray) -> float:
    x = design @ beta
    return float(np.sum(is_case * x - np.logaddexp(0, x)))


def _logit(score: np.ndarray) -> np.ndarray:
    p = np.clip(score, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.log(p / (1 - p))


def _expit(x: np.ndarray) -> np.ndarray:
    # Not 1 / (1 + exp(-x)), which overflows.
    return np.exp(-np.logaddexp(0, -x))
