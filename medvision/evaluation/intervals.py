"""Intervals and one-sided bounds: closed forms for proportions and AUROC, the bootstrap's for the rest.

Images of one patient resemble each other, so that n of them tell less than n patients would. Wherever patients are
known the figures here count by patient; ``groups`` are their codes, (n,), and None says that patients are unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medvision.errors import DataInvalid
from medvision.records import Figure

LEVEL = 0.95
# Of the standard normal distribution: two-sided and one-sided 95 %.
Z, Z_ONE_SIDED = 1.959963984540054, 1.6448536269514722
# With more undefined replicates, the others are those of some other, easier study.
MAX_UNDEFINED = 0.1
# With a wrong image, and with a right one, before the variance between patients is trusted.
MIN_PATIENTS = 5


def undefined(method: str, n: int = 0) -> Figure:
    """Return the figure that has no value; ``method`` says why."""
    return Figure(None, None, None, None, n, method)


def wilson(successes: int, n: int) -> Figure:
    """Return the proportion of independent cases with Wilson's interval and Clopper and Pearson's lower bound.

    DataInvalid without a case, or unless 0 <= successes <= n.
    """
    bound = clopper_pearson_bound(successes, n)
    return Figure(successes / n, *wilson_limits(successes / n, n), bound, n, "Wilson", successes)


def wilson_limits(p: float, n: float) -> tuple[float, float]:
    """Return the two-sided 95 % score interval of a share p of n > 0 cases, which may be an effective size.

    Wilson, JASA 1927; Newcombe, Stat Med 1998.
    """
    centre, half = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + Z**2 / n), (centre + half) / (1 + Z**2 / n)
    # Where the interval ends at 0 or 1, rounding would put it a hair beside the value.
    return max(0.0, min(low, p)), min(1.0, max(high, p))


def clopper_pearson_bound(successes: float, n: float, level: float = LEVEL) -> float:
    """Return the exact one-sided lower bound (Clopper and Pearson, Biometrika 1934), by the quantile of the beta.

    Both numbers may be fractions (Korn and Graubard 1998). DataInvalid as in ``wilson``.
    """
    from scipy.special import betaincinv

    if not (n > 0 and 0 <= successes <= n):
        raise DataInvalid(
            f"A proportion needs at least one case and 0 to n successes; found {successes} of {n}. "
            "Evaluate on a split that holds cases of every class."
        )
    return float(betaincinv(successes, n - successes + 1, 1 - level)) if successes > 0 else 0.0


def effective_size(correct: np.ndarray, groups: np.ndarray | None) -> float:
    """Return how many independent cases tell as much as these, (n,) bool: n / design effect, at most n.

    n too where patients are unknown. The variance between patients is that of the linearised ratio, with m / (m - 1)
    (Korn and Graubard, Survey Methodology 1998; NCHS presentation standards for proportions, 2017). Where all are
    right, or all wrong, there is none, and the size is at most the number of patients m; so it is here wherever fewer
    than 5 patients have a wrong image, or a right one: by simulation, bounds fail too often with less.
    """
    n, p = len(correct), float(np.mean(correct))
    if groups is None:
        return float(n)
    right, sizes = _by_patient(correct, groups)
    m = len(sizes)
    if p in (0.0, 1.0) or m == 1:
        return float(m)
    residuals = right - p * sizes
    variance = m / (m - 1) * float(residuals @ residuals) / n**2
    most = n if _is_measured(right, sizes) else m
    return min(float(most), p * (1 - p) / max(variance, np.finfo(float).tiny))


def _by_patient(correct: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many images of each patient are right, and how many there are, (m,) both."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.bincount(codes, weights=correct), sizes


def _is_measured(right: np.ndarray, sizes: np.ndarray) -> bool:
    """Tell whether enough patients have a wrong image, and a right one, to measure the variance between patients."""
    return min(int((right < sizes).sum()), int((right > 0).sum())) >= MIN_PATIENTS


def proportion(correct: np.ndarray, groups: np.ndarray | None = None, draws: np.ndarray | None = None) -> Figure:
    """Return the share of True with its interval and its lower bound; undefined without a case.

    Parameters
    ----------
    correct: (n,) bool.
    groups: (n,) codes of patients; None counts every image as independent: Wilson, and Clopper-Pearson for the bound.
    draws: (r,) patient bootstrap of the share, which gives the interval. Without it, and where fewer than 5 patients
        have a wrong image, or a right one, it is Wilson's on the effective size: on the patients, if all are right.
    """
    n, successes = len(correct), int(np.sum(correct))
    if n == 0:
        return undefined("not defined: no case")
    if groups is None:
        return wilson(successes, n)
    value, bound, size = successes / n, lower_bound(correct, groups), effective_size(correct, groups)
    right, sizes = _by_patient(correct, groups)
    if draws is not None and _is_measured(right, sizes):
        limits = bootstrap_limits(draws, value, len(sizes))
        if limits is not None:
            return Figure(value, *limits[:2], bound, n, f"patient bootstrap, {len(draws)} replicates", successes)
    method = f"Wilson on {len(sizes)} patients" if size == len(sizes) else f"Wilson on an effective size of {size:.1f}"
    return Figure(value, *wilson_limits(value, size), bound, n, method, successes)


def lower_bound(correct: np.ndarray, groups: np.ndarray | None) -> float:
    """Return the one-sided 95 % bound of a share, (n,) bool with n >= 1, by counting and never by simulation.

    Clopper-Pearson on the effective size, and at most that of the same patients all right: without that ceiling a first
    wrong image could raise the bound, by giving a variance where there was none.
    """
    size = effective_size(correct, groups)
    m = len(correct) if groups is None else len(np.unique(groups))
    return min(clopper_pearson_bound(float(np.mean(correct)) * size, size), clopper_pearson_bound(m, m))


class Limits(NamedTuple):
    """A two-sided 95 % interval, and the one-sided 95 % bounds below and above."""

    low: float
    high: float
    lower: float
    upper: float


def bootstrap_limits(draws: np.ndarray, value: float, m: int, *, is_loss: bool = False) -> Limits | None:
    """Return limits from the standard error of replicates (r,) of a figure in (0, 1), or of a loss in (0, inf).

    Student's t with m - 1 degrees of freedom on the scale of the logit, or of the logarithm: m is the number of
    patients, and sqrt(m / (m - 1)) what resampling few of them misses. None if the replicates do not vary, if more than
    10 % are undefined (NaN), or if the value is an end of its range.

    Not percentiles: near 1 and with few patients they hold the truth 70 to 90 % of the time instead of 95 %, and those
    of a biased figure, as ECE is, may not even hold its value. Not BCa either, whose acceleration needs the jackknife
    of every figure over every patient. (DiCiccio and Efron, Stat Sci 1996; Hesterberg, Am Stat 2015.)
    """
    from scipy.special import stdtrit

    defined = draws[~np.isnan(draws)]
    slope = value if is_loss else value * (1 - value)
    # Sums in another order differ in the last digits; that is no variation.
    if m < 2 or slope <= 0 or len(defined) < (1 - MAX_UNDEFINED) * len(draws) or np.ptp(defined) < 1e-12:
        return None
    error = float(defined.std()) * math.sqrt(m / (m - 1)) / slope
    two, one = float(stdtrit(m - 1, (1 + LEVEL) / 2)), float(stdtrit(m - 1, LEVEL))
    place = _place_loss if is_loss else _place_share
    return Limits(*(place(value, t * error) for t in (-two, two, -one, one)))


def _place_share(value: float, step: float) -> float:
    """Return the share whose logit lies a step beside that of a value in (0, 1)."""
    # From logarithms of odds, since exp of them overflows.
    odds = math.log(value / (1 - value)) + step
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def _place_loss(value: float, step: float) -> float:
    return value * math.exp(min(step, 700.0))


@dataclass(frozen=True)
class DeLong:
    """AUROC, its variance, and the structural components of cases (m,) and of the others (n,).

    Of two models on the same images, the covariance of the AUROCs is that of their components.
    """

    auroc: float
    variance: float
    cases: np.ndarray
    others: np.ndarray


def delong(y_true: np.ndarray, y_score: np.ndarray) -> DeLong:
    """Return the AUROC with DeLong's variance (DeLong et al., Biometrics 1988), NaN unless both sides have 2 images.

    ``y_true`` (n,) is True for cases. By sorting, as with the fast midranks of Sun and Xu (IEEE SPL 2014): n log n.
    """
    cases, others = np.sort(y_score[y_true]), np.sort(y_score[~y_true])
    above = _placements(others, y_score[y_true])
    below = 1 - _placements(cases, y_score[~y_true])
    auroc = float(above.mean())
    if min(len(cases), len(others)) < 2:
        return DeLong(auroc, math.nan, above, below)
    variance = float(above.var(ddof=1) / len(cases) + below.var(ddof=1) / len(others))
    return DeLong(auroc, variance, above, below)


def auroc_interval(y_true: np.ndarray, y_score: np.ndarray) -> Figure:
    """Return the AUROC of independent images with DeLong's interval on the scale of the logit.

    Near 1, where models are, the AUROC is skewed and the plain interval passes 1; on the logit it does neither
    (Pepe 2003, section 5.2.4). Without a variance, as of a perfect ranking: ``certain``.
    """
    if y_true.all() or not y_true.any():
        return undefined("not defined: no case, or no other", len(y_true))
    found = delong(y_true, y_score)
    n, a = len(y_true), found.auroc
    if not found.variance > 1e-15:
        return certain(a, min(len(found.cases), len(found.others)), n)
    error = math.sqrt(found.variance) / (a * (1 - a))
    low, high, bound = (_place_share(a, z * error) for z in (-Z, Z, -Z_ONE_SIDED))
    return Figure(a, low, high, bound, n, "DeLong on the logit")


def certain(value: float, pairs: int, n: int, is_error: bool = False) -> Figure:
    """Return a figure in [0, 1] whose replicates cannot vary, with limits that count independent pairs.

    A pair is a case and a counter-case of two patients. A ranking without a fault has every pair right, which has at
    most the probability AUROC^pairs: so Clopper-Pearson on the pairs is a bound (compare Obuchowski and Lieber, Acad
    Radiol 2002). Of other figures it is the cautious limit that the rarest class allows. No pair: [0, 1].
    """
    method = f"Wilson on {pairs} independent pairs: no variation"
    if pairs == 0:
        return Figure(value, 0.0, 1.0, float(is_error), n, method)
    # Of an error it is the absence that succeeds.
    good = (1 - value if is_error else value) * pairs
    bound = clopper_pearson_bound(good, pairs)
    return Figure(value, *wilson_limits(value, pairs), 1 - bound if is_error else bound, n, method)


def _placements(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return which share of the sorted reference lies below each value, ties counting half."""
    below, up_to = np.searchsorted(reference, values, "left"), np.searchsorted(reference, values, "right")
    return (below + up_to) / (2 * len(reference))
