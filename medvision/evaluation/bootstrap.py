"""The bootstrap by patient: how every figure would vary if other patients of the same kind had been tested.

Patients are drawn with replacement, with all of their images, since images of one patient are not independent (Davison
and Hinkley 1997, section 3.8; Field and Welsh, JRSS B 2007). Draws are stratified by the patient's most frequent true
class, so that no class vanishes. Where patients are unknown each image counts as a patient.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medvision.evaluation.figures import compute, figure_names, prepare
from medvision.evaluation.predictions import Predictions
from medvision.records import Plan

# Of weights gathered at a time: 4 MiB stays near the processor, and makes memory independent of the replicates.
_BLOCK = 1 << 19


def point_values(predictions: Predictions) -> dict[str, float]:
    """Return the value of every figure, by the names that ``replicate`` returns; NaN is undefined."""
    sample = prepare(predictions.y_true, predictions.y_score, predictions.units)
    values = compute(sample, np.ones((1, sample.n_units)))[0]
    return dict(zip(figure_names(predictions.classes), values.tolist(), strict=True))


def replicate(predictions: Predictions, plan: Plan) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of all figures and their bootstrap replicates, (replicates, figures); NaN is undefined.

    Two models on the same cases, with the same plan, meet the same draws: the difference of their replicates is the
    paired bootstrap of the difference of their figures.
    """
    units = predictions.units
    sample = prepare(predictions.y_true, predictions.y_score, units)
    strata = most_frequent_class(predictions.y_true, units, sample.n_classes)
    names, done = figure_names(predictions.classes), 0
    values = np.empty((plan.replicates, len(names)))
    for weights in draw_weights(strata, plan, max(1, _BLOCK // len(units))):
        values[done : done + len(weights)] = compute(sample, weights)
        done += len(weights)
    return names, values


def most_frequent_class(y_true: np.ndarray, units: np.ndarray, k: int) -> np.ndarray:
    """Return the most frequent true class of each unit, (n_units,); of equals the one that is rarer in the sample."""
    rarest_first = np.argsort(np.bincount(y_true, minlength=k), kind="stable")
    counts = np.bincount(units * k + y_true, minlength=(int(units.max()) + 1) * k).reshape(-1, k)
    return rarest_first[counts[:, rarest_first].argmax(axis=1)]


def draw_weights(strata: np.ndarray, plan: Plan, block: int) -> Iterator[np.ndarray]:
    """Yield how often each unit is drawn, (up to ``block`` replicates, n_units) float64, within its stratum.

    The draws depend on strata and plan alone, not on the size of the blocks.
    """
    m = len(strata)
    by_stratum = np.argsort(strata, kind="stable")
    _, first, inverse, size = np.unique(strata[by_stratum], return_index=True, return_inverse=True, return_counts=True)
    first, size = first[inverse], size[inverse]
    generator = np.random.default_rng(plan.seed)
    for start in range(0, plan.replicates, block):
        rows = min(block, plan.replicates - start)
        drawn = by_stratum[first + (generator.random((rows, m)) * size).astype(np.int64)]
        drawn += m * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * m).reshape(rows, m).astype(np.float64)
