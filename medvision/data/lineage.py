"""The rows that a model package was made from, as a dataset's folder keeps them: counted, and without a name.

A file's name may name a patient. What leaves the project has the keyed hashes of images and patients in its place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medvision.data.saved_manifest import MANIFEST_FILE
from medvision.records import SPLITS, Audit

_NAMELESS = ["image_id", "patient_key", "class", "side", "given_split", "pixel_hash", "width", "height", "channels"]


@dataclass(frozen=True)
class SideSize:
    """How many images, of how many patients (None: unknown), of a class are on one side of a split."""

    side: str
    class_name: str
    n_images: int
    n_patients: int | None


def load_rows(folder: Path, *, manifest_fingerprint: str, split_fingerprint: str) -> pd.DataFrame | None:
    """Return a row an image without its file's name; None unless the folder's tables are those of these fingerprints.

    ``class`` and ``side`` are names; ``patient_key`` is "" where the patient is not known.
    """
    try:
        manifest = pd.read_parquet(folder / MANIFEST_FILE)
        split = pd.read_parquet(folder / "split.parquet")
        known = (manifest.attrs["fingerprint"], split.attrs["fingerprint"])
        classes = manifest.attrs["classes"]
    # Arrow has errors of its own for damaged files, beside OSError, ValueError, KeyError ...
    except Exception:
        return None
    if known != (manifest_fingerprint, split_fingerprint):
        return None
    rows = manifest.merge(split, on="image_id", validate="one_to_one")
    rows["class"] = [classes[label] for label in rows.label]
    rows.attrs = {}
    # By the hash: the order of the files is that of their names.
    return rows[_NAMELESS].sort_values("image_id", ignore_index=True)


def without_names(audit: Audit) -> Audit:
    """Return an audit without the names of files that are its examples."""
    return dataclasses.replace(
        audit, findings=tuple(dataclasses.replace(finding, examples=()) for finding in audit.findings)
    )


def count_sides(rows: pd.DataFrame) -> tuple[SideSize, ...]:
    """Count the images and patients of each class on train, val and test."""
    knows_patients = bool((rows.patient_key != "").any())
    return tuple(
        SideSize(
            side, name, len(found), found.patient_key[found.patient_key != ""].nunique() if knows_patients else None
        )
        for side in SPLITS
        for name in sorted(rows["class"].unique())
        for found in [rows[(rows.side == side) & (rows["class"] == name)]]
    )
