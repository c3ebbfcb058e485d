"""A manifest on disk: rows without any file's name, and one file beside them, for its owner alone, with the names."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from medvision.files import atomic_write, write_secret

MANIFEST_FILE = "manifest.parquet"
NAMES_FILE = "files.csv"


def save_rows(rows: pd.DataFrame, description: dict[str, object], folder: Path) -> None:
    """Write rows, less their paths, and what describes them, in one file: both are replaced together."""
    # pandas keeps attrs in the Parquet file.
    rows = rows.drop(columns="path")
    rows.attrs = description
    atomic_write(folder / MANIFEST_FILE, lambda file: rows.to_parquet(file, index=False, write_page_checksum=True))


def load_rows(folder: Path, paths: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return rows, with their paths again, and what describes them.

    ``paths`` has the path of each file by its id; KeyError for a row of another file.
    """
    rows = pd.read_parquet(folder / MANIFEST_FILE, page_checksum_verification=True)
    described = {**rows.attrs}
    rows.attrs = {}
    rows.insert(1, "path", [paths[image_id.partition("-")[0]] for image_id in rows.image_id])
    return rows, described


def save_names(rows: pd.DataFrame, rejected: Iterable[tuple[str, str]], folder: Path) -> None:
    """Write files.csv: which file, and which frame of it, each image_id is.

    It is the one record that holds names of files, which may name patients: only its owner can read it (mode 0600), no
    step records it in a run or puts it into a package, and whoever shares the folder leaves it out.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image_id", "path", "frame"])
    writer.writerows(zip(rows.image_id, rows.path, rows.frame, strict=True))
    writer.writerows((image_id, path, image_id.partition("-")[2] or 0) for image_id, path in rejected)
    write_secret(folder / NAMES_FILE, text.getvalue().encode())
