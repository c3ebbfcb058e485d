"""The table of predictions: one row an image, from which every figure can be computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvision.errors import DataInvalid
from medvision.files import atomic_write

SCORE_PREFIX = "score_"


@dataclass(frozen=True)
class Predictions:
    """Truth and scores of n images over k classes, in the order in which they were saved."""

    image_ids: tuple[str, ...]
    patient_keys: tuple[str | None, ...]
    y_true: np.ndarray
    y_score: np.ndarray
    classes: tuple[str, ...]

    @property
    def y_pred(self) -> np.ndarray:
        """Return the class of the highest score, (n,)."""
        return self.y_score.argmax(axis=1)


def save_predictions(
    path: Path,
    image_ids: Sequence[str],
    patient_keys: Sequence[str | None],
    y_true: np.ndarray,
    y_score: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Write predictions as Parquet, atomically: image_id, patient_key, y_true, y_pred and ``score_<class>``.

    ``y_true`` (n,) and ``y_score`` (n, k) are as in ``evaluate_predictions``; y_true and y_pred are class indices, in
    the order of the score columns. A patient key is None where the patient is unknown. The same table gives the same
    bytes with the same pyarrow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "image_id": pa.array(image_ids, pa.string()),
        "patient_key": pa.array(patient_keys, pa.string()),
        "y_true": pa.array(y_true, pa.int32()),
        "y_pred": pa.array(y_score.argmax(axis=1), pa.int32()),
    }
    for c, name in enumerate(classes):
        columns[SCORE_PREFIX + name] = pa.array(y_score[:, c], pa.float32())
    table = pa.table(columns)
    atomic_write(path, lambda file: pq.write_table(table, file))


def load_predictions(path: Path) -> Predictions:
    """Read what ``save_predictions`` wrote; DataInvalid if it is missing, damaged, or another kind of table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataInvalid(f"{path} is missing. Run evaluate, which makes it.")
    try:
        table = pq.ParquetFile(path).read()
        scores = [name for name in table.column_names if name.startswith(SCORE_PREFIX)]
        return Predictions(
            image_ids=tuple(table["image_id"].to_pylist()),
            patient_keys=tuple(table["patient_key"].to_pylist()),
            y_true=table["y_true"].to_numpy().astype(np.int64),
            y_score=np.column_stack([table[name].to_numpy() for name in scores]),
            classes=tuple(name.removeprefix(SCORE_PREFIX) for name in scores),
        )
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DataInvalid(f"{path} is not a table of predictions ({error}). Run evaluate again.") from None
