"""Differences of two sets of predictions on the same cases, with intervals: the paired bootstrap by patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvision.errors import DataInvalid
from medvision.evaluation.bootstrap import point_values, replicate
from medvision.evaluation.figures import OVERALL, PER_CLASS
from medvision.evaluation.intervals import LEVEL, MAX_UNDEFINED, undefined
from medvision.evaluation.predictions import Predictions
from medvision.records import Figure, Plan

# Sums in another order differ in the last digits; that is no difference.
_NOTHING = 1e-12
# Of several classes the Brier score may be 2, and the NLL is without end; all other figures are in [0, 1].
LOSSES = ("brier", "nll")


@dataclass(frozen=True)
class Draws:
    """All figures of ``n`` images by name: the patients that each rests on, its value, its replicates (replicates,)."""

    n: int
    n_units: dict[str, int]
    values: dict[str, float]
    replicates: dict[str, np.ndarray]


def draw(predictions: Predictions, plan: Plan) -> Draws:
    """Compute and bootstrap every figure; draws of the same cases with the same plan are paired."""
    # As an evaluation does: bins of float32 have other edges.
    predictions = replace(predictions, y_score=predictions.y_score.astype(np.float64))
    names, columns = replicate(predictions, plan)
    n, groups = len(predictions.y_true), predictions.groups
    n_units = count_units(predictions.y_true, np.arange(n) if groups is None else groups, predictions.classes)
    return Draws(n, n_units, point_values(predictions), dict(zip(names, columns.T, strict=True)))


def difference(a: Draws, b: Draws, name: str) -> Figure:
    """Return a figure of ``a`` less that of ``b``; ``bound`` is the lower one."""
    return describe_difference(
        a.values[name] - b.values[name],
        a.replicates[name] - b.replicates[name],
        a.n_units[name],
        a.n,
        of_shares=name not in LOSSES,
    )


def count_units(y_true: np.ndarray, units: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """Return how many patients each figure rests on, by name, given the patient, or image, of each case (n,).

    Accuracy rests on all, what tells classes apart on those of the rarest of them: with more degrees of freedom the
    intervals of differences of AUROC hold the truth too seldom where patients are few.
    """
    n_units, fewest = len(np.unique(units)), []
    for c in range(len(classes)):
        sides = [len(np.unique(units[side])) for side in (y_true == c, y_true != c)]
        fewest.append(min(m for m in sides if m))
    counted = {name: min(fewest) for name in OVERALL} | {"accuracy": n_units}
    return counted | {f"{figure}.{name}": m for figure in PER_CLASS for name, m in zip(classes, fewest, strict=True)}


def describe_difference(value: float, drawn: np.ndarray, m: int, n: int, *, of_shares: bool = False) -> Figure:
    """Return a difference with limits from the standard error of its replicates, by Student's t of m - 1 patients.

    Not percentiles, which are too narrow with few patients (see ``bootstrap_limits``). Where the replicates do not
    vary, as of two models that are right in the same cases, the limits are those of what m patients can hide: that a
    share of up to 1 - 0.025^(1/m) would have differed (Clopper-Pearson of none of m). Where more than 10 % of them are
    undefined there is no interval. ``of_shares``: of two figures in [0, 1], so that limits end at -1 and 1.
    """
    from scipy.stats import t

    if math.isnan(value):
        return undefined("not defined", n)
    error = _standard_error(drawn, m)
    if m < 2 or math.isnan(error):
        why = "fewer than two patients of a class" if m < 2 else "undefined in more than 10 % of the replicates"
        return Figure(value, None, None, None, n, f"no interval: {why}")
    if error == 0:
        two, one = 1 - ((1 - LEVEL) / 2) ** (1 / m), 1 - (1 - LEVEL) ** (1 / m)
        method = f"Clopper-Pearson on {m} patients alike"
    else:
        two, one = float(t.ppf((1 + LEVEL) / 2, m - 1)) * error, float(t.ppf(LEVEL, m - 1)) * error
        method = f"paired bootstrap, {len(drawn)} replicates"
    least, most = (-1.0, 1.0) if of_shares else (-math.inf, math.inf)
    return Figure(value, max(value - two, least), min(value + two, most), max(value - one, least), n, method)


def p_value(a: Draws, b: Draws, name: str) -> float | None:
    """Return the two-sided p value of no difference, by the t of ``difference``.

    1 where the models do not differ in any draw. None where a difference has no interval: it may be no chance at all,
    as that of a faultless model to one that calls every case alike.
    """
    from scipy.stats import t

    m, found = a.n_units[name], abs(a.values[name] - b.values[name])
    error = _standard_error(a.replicates[name] - b.replicates[name], m)
    if error > 0:
        return float(2 * t.sf(found / error, m - 1))
    return 1.0 if error == 0 and found < _NOTHING else None


def check_same_cases(name: str, predictions: Predictions, other_name: str, other: Predictions) -> None:
    """Raise DataInvalid unless both are predictions of the same cases, in the same order, with the same classes."""
    same = predictions.image_ids == other.image_ids and np.array_equal(predictions.y_true, other.y_true)
    if not same or predictions.classes != other.classes:
        raise DataInvalid(
            f"Expected the predictions of {name} and {other_name} to be of the same cases, found others. "
            "Evaluate both on the same dataset."
        )


def _standard_error(drawn: np.ndarray, m: int) -> float:
    """Return the standard error, with what resampling few patients misses of it; 0: no variation, NaN: undefined."""
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < (1 - MAX_UNDEFINED) * len(drawn):
        return math.nan
    if m < 2 or np.ptp(defined) < _NOTHING:
        return 0.0
    return float(defined.std()) * math.sqrt(m / (m - 1))
