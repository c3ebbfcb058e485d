"""The figure that a policy asks of every subgroup, with bounds that count the cases in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from medvision.evaluation.intervals import proportion
from medvision.evaluation.predictions import Predictions
from medvision.evaluation.subgroups import band
from medvision.validation.evidence import SubgroupFigure
from medvision.validation.policy import Policy


def measure_subgroups(
    predictions: Predictions, columns: Mapping[str, pd.Series], policy: Policy
) -> tuple[SubgroupFigure, ...]:
    """Return the figure of the policy's floor in each subgroup, and of each class that the policy is strict about.

    ``columns``: by name, what each image (n,) has in the columns of the manifest; which of them count, the policy says.
    () where it has no floor.
    """
    floor = policy.rules.subgroup_floor
    if floor is None:
        return ()
    classes = policy.rules.critical or predictions.classes
    return tuple(
        found
        for column in floor.columns
        if column in columns
        for found in _of_column(predictions, column, band(columns[column]).to_numpy(), floor.figure, classes)
    )


def _of_column(
    predictions: Predictions, column: str, values: np.ndarray, figure: str, classes: Sequence[str]
) -> Iterator[SubgroupFigure]:
    y_true, y_pred, groups = predictions.y_true, predictions.y_pred, predictions.groups
    for value in sorted(set(values)):
        inside, name = values == value, f"{column} = {value}"
        if figure == "accuracy":
            yield _figure(column, name, y_pred == y_true, inside, groups)
            continue
        for of in classes:
            c = predictions.classes.index(of)
            is_case = inside & ((y_true == c) == (figure == "sensitivity"))
            yield _figure(column, f"{name}, {of}", (y_pred == c) == (y_true == c), is_case, groups)


def _figure(column: str, name: str, right: np.ndarray, among: np.ndarray, groups: np.ndarray | None) -> SubgroupFigure:
    own = None if groups is None else groups[among]
    n = int(among.sum()) if own is None else len(np.unique(own))
    return SubgroupFigure(column, name, n, proportion(right[among], own))
