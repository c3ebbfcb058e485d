"""The table of predictions: one row an image, from which every figure can be computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medvision.errors import DataInvalid
from medvision.files import atomic_write

SCORE_PREFIX = "score_"
_DISAGREEMENT = "disagreement"
_PACKAGE, _TEST_SET = "medvision.package_digest", "medvision.test_fingerprint"


@dataclass(frozen=True)
class Predictions:
    """Truth and scores of n images over k classes, in the order in which they were saved.

    ``package_digest`` and ``test_fingerprint`` say of which model package and which test set; "" if it was not said.
    ``disagreement`` (n,) in [0, 1]: how much the members of the package differ on each image; None for one member.
    """

    image_ids: tuple[str, ...]
    patient_keys: tuple[str | None, ...]
    y_true: np.ndarray
    y_score: np.ndarray
    classes: tuple[str, ...]
    package_digest: str = ""
    test_fingerprint: str = ""
    disagreement: np.ndarray | None = None

    @property
    def y_pred(self) -> np.ndarray:
        """Return the class of the highest score, (n,)."""
        return self.y_score.argmax(axis=1)

    @property
    def groups(self) -> np.ndarray | None:
        """Return the code of each image's patient, (n,) from 0 on; None where no patient is known.

        Where some are known, an image whose patient is unknown is a patient of its own.
        """
        if all(key is None for key in self.patient_keys):
            return None
        codes: dict[object, int] = {}
        # An image's number is no key, which are texts.
        keys = (i if key is None else key for i, key in enumerate(self.patient_keys))
        return np.array([codes.setdefault(key, len(codes)) for key in keys])

    @property
    def units(self) -> np.ndarray:
        """Return what counts as independent, (n,) codes from 0 on: patients, or images where all are unknown."""
        groups = self.groups
        return np.arange(len(self.y_true)) if groups is None else groups


def select(predictions: Predictions, cases: np.ndarray) -> Predictions:
    """Return some of the cases, chosen by a mask or by positions."""
    places = np.arange(len(predictions.y_true))[cases]
    return replace(
        predictions,
        image_ids=tuple(predictions.image_ids[place] for place in places),
        patient_keys=tuple(predictions.patient_keys[place] for place in places),
        y_true=predictions.y_true[places],
        y_score=predictions.y_score[places],
        disagreement=None if predictions.disagreement is None else predictions.disagreement[places],
    )


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Return predictions of other cases one after the other; the classes are those of the first.

    They are of no package and no test set; of a disagreement only where all of them have one.
    """
    disagreements = [part.disagreement for part in parts if part.disagreement is not None]
    return Predictions(
        image_ids=tuple(image_id for part in parts for image_id in part.image_ids),
        patient_keys=tuple(key for part in parts for key in part.patient_keys),
        y_true=np.concatenate([part.y_true for part in parts]),
        y_score=np.concatenate([part.y_score for part in parts]),
        classes=parts[0].classes,
        disagreement=np.concatenate(disagreements) if len(disagreements) == len(parts) else None,
    )


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions as Parquet, atomically: image_id, patient_key, y_true, y_pred and ``score_<class>``.

    y_true and y_pred are class indices, in the order of the score columns, which are float32. Of packages of several
    members there is a column disagreement as well. The same predictions give the same bytes with the same pyarrow. What
    they are of stands in the schema's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "image_id": pa.array(predictions.image_ids, pa.string()),
        "patient_key": pa.array(predictions.patient_keys, pa.string()),
        "y_true": pa.array(predictions.y_true, pa.int32()),
        "y_pred": pa.array(predictions.y_pred, pa.int32()),
    }
    for c, name in enumerate(predictions.classes):
        columns[SCORE_PREFIX + name] = pa.array(predictions.y_score[:, c], pa.float32())
    if predictions.disagreement is not None:
        columns[_DISAGREEMENT] = pa.array(predictions.disagreement, pa.float32())
    origin = {_PACKAGE: predictions.package_digest, _TEST_SET: predictions.test_fingerprint}
    table = pa.table(columns, metadata=origin)
    atomic_write(path, lambda file: pq.write_table(table, file))


def load_predictions(path: Path) -> Predictions:
    """Read what ``save_predictions`` wrote; DataInvalid if it is missing, damaged, or another kind of table.

    Scores are float64, as all figures are computed: bins of float32 would have other edges.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataInvalid(f"{path} is missing. Run evaluate, which makes it.")
    try:
        table = pq.ParquetFile(path).read()
        scores = [name for name in table.column_names if name.startswith(SCORE_PREFIX)]
        origin = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        return Predictions(
            image_ids=tuple(table["image_id"].to_pylist()),
            patient_keys=tuple(table["patient_key"].to_pylist()),
            y_true=table["y_true"].to_numpy().astype(np.int64),
            y_score=np.column_stack([table[name].to_numpy() for name in scores]).astype(np.float64),
            classes=tuple(name.removeprefix(SCORE_PREFIX) for name in scores),
            package_digest=origin.get(_PACKAGE, ""),
            test_fingerprint=origin.get(_TEST_SET, ""),
            disagreement=(
                table[_DISAGREEMENT].to_numpy().astype(np.float64) if _DISAGREEMENT in table.column_names else None
            ),
        )
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DataInvalid(f"{path} is not a table of predictions ({error}). Run evaluate again.") from None
