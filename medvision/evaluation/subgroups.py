"""The same figures by site, sex, age band, scanner: whatever column the images have."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import numpy as np
import pandas as pd

from medvision.evaluation.bootstrap import draw_weights, most_frequent_class
from medvision.evaluation.figures import compute, figure_names, prepare
from medvision.evaluation.metrics import describe
from medvision.evaluation.paired import LOSSES, count_units, describe_difference
from medvision.evaluation.predictions import Predictions, select
from medvision.records import ClassFigures, Figure, OverallFigures, Plan, Subgroup

_Figures = TypeVar("_Figures", OverallFigures, ClassFigures)

# With fewer patients an interval is so wide that a figure misleads more than it tells.
MINIMUM = 30
_MANY_VALUES = 10


def band(values: pd.Series) -> pd.Series:
    """Return a column's values as text, numbers with more than ten different ones as quarters of equal size.

    A quarter holds its upper end. Missing values and empty texts are ``unknown``.
    """
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > _MANY_VALUES:
        quarters, edges = pd.qcut(values, 4, labels=False, retbins=True, duplicates="drop")
        ends = _as_texts(edges)
        names = {quarter: f"{low} to {high}" for quarter, (low, high) in enumerate(pairwise(ends))}
        return quarters.map(names).astype(object).where(values.notna(), "unknown")
    texts = values.astype(str).astype(object)
    return texts.where(values.notna() & (texts.str.strip() != ""), "unknown")


def assess_subgroups(predictions: Predictions, column: str, values: pd.Series, plan: Plan) -> tuple[Subgroup, ...]:
    """Return the figures of each value of a column (n,), and their gaps to those of all other images.

    A gap is the figure of the subgroup less that of the others, in the same draws of patients. With fewer than 30
    patients a subgroup has no figures: ``insufficient evidence``.
    """
    bands = band(values).to_numpy()
    return tuple(_assess(predictions, column, str(value), bands == value, plan) for value in sorted(set(bands)))


def _assess(predictions: Predictions, column: str, value: str, inside: np.ndarray, plan: Plan) -> Subgroup:
    ours = select(predictions, inside)
    n_units = int(ours.units.max()) + 1
    n_patients = None if ours.groups is None else n_units
    if n_units < MINIMUM:
        return Subgroup(column, value, len(ours.y_true), n_patients, "insufficient evidence", None, (), {})
    overall, per_class = describe(ours, plan)
    gaps = {} if inside.all() else _gaps(predictions, inside, plan)
    return Subgroup(column, value, len(ours.y_true), n_patients, "assessed", overall, per_class, gaps)


def _as_texts(edges: np.ndarray) -> list[str]:
    """Return numbers with as few decimals as tell them apart, at least two."""
    for decimals in range(2, 17):
        texts = [np.format_float_positional(edge, precision=decimals, trim="-") for edge in edges]
        if len(set(texts)) == len(texts):
            break
    return texts


def _gaps(predictions: Predictions, inside: np.ndarray, plan: Plan) -> dict[str, Figure]:
    units = predictions.units
    strata = most_frequent_class(predictions.y_true, units, len(predictions.classes))
    (ours, ours_drawn), (others, others_drawn) = (
        _draw(predictions, part, units, strata, plan) for part in (inside, ~inside)
    )
    m, of_others = (
        count_units(predictions.y_true[part], units[part], predictions.classes) for part in (inside, ~inside)
    )
    drawn, values = ours_drawn - others_drawn, ours - others
    return {
        name: describe_difference(
            float(values[i]),
            drawn[:, i],
            min(m[name], of_others[name]),
            int(inside.sum()),
            of_shares=name not in LOSSES,
        )
        for i, name in enumerate(figure_names(predictions.classes))
    }


def _draw(
    predictions: Predictions, inside: np.ndarray, units: np.ndarray, strata: np.ndarray, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Return all figures of some images, (f,), and their replicates (r, f) in draws of all patients."""
    sample = prepare(predictions.y_true[inside], predictions.y_score[inside], units[inside])
    weights = draw_weights(strata, plan, block=256)
    drawn = [compute(sample, block[:, : sample.n_units]) for block in weights]
    return compute(sample, np.ones((1, sample.n_units)))[0], np.concatenate(drawn)
