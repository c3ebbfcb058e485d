"""The figures of the subgroups that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.models import plan_of

if TYPE_CHECKING:
    import pandas as pd

    from medvision.config import Config
    from medvision.evaluation.predictions import Predictions
    from medvision.records import Subgroup
    from pipelines.dataset import SplitDataset


# Values of these name an image or a patient, and reports go where images do not.
_IDENTIFYING = {"image_id", "path", "frame", "patient_key", "pixel_hash", "group", "label"}


def measure_subgroups(predictions: Predictions, dataset: SplitDataset, config: Config) -> tuple[Subgroup, ...]:
    """Assess the test images by each column of ``evaluation.subgroups``."""
    from medvision.evaluation.subgroups import assess_subgroups

    plan = plan_of(config)
    columns = subgroup_columns(dataset, config)
    return tuple(
        subgroup
        for column, values in columns.items()
        for subgroup in assess_subgroups(predictions, column, values, plan)
    )


def subgroup_columns(dataset: SplitDataset, config: Config) -> dict[str, pd.Series]:
    """Return the columns of ``evaluation.subgroups`` for the test images; ConfigInvalid names the nearest of none."""
    from medvision.config import nearest
    from medvision.errors import ConfigInvalid

    rows = dataset.manifest.rows.iloc[dataset.split.indices("test")]
    known = [column for column in rows.columns if column not in _IDENTIFYING]
    for column in config.evaluation.subgroups:
        if column not in known:
            raise ConfigInvalid(f"evaluation.subgroups: no column {column!r}. {nearest(column, known)}")
    return {column: rows[column] for column in config.evaluation.subgroups}
