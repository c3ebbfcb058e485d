"""The manifest: one row an image, with label, patient, group of images that belong together, and pixel hash."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medvision.config import Config
from medvision.data.decode import ImageSource, collapse_gray, decode_image, hash_pixels
from medvision.data.parallel import map_files
from medvision.data.pseudonyms import load_or_make_key, pseudonym
from medvision.data.sources import ImageFile, list_images
from medvision.errors import DataInvalid, DecodeRejected
from medvision.files import atomic_write, fingerprint

# Raised whenever rows would come out differently from the same files.
_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """All images of a dataset.

    ``rows`` has a row an image, sorted by path, with the columns image_id and patient_key (keyed hashes; patient_key
    is "" where the patient is not known), path (relative to ``root``), label (index into ``classes``), given_split
    ("" if none), pixel_hash, group (images of one patient or of the same pixels share it), width, height, channels
    (1 also for a colour file that holds a gray image).

    ``rejected`` has path and reason of every file that could not be read. ``unmatched`` counts the rows in whose file
    name the patient pattern was not found. ``window``: what CT values are seen through, "" for the files' own.
    """

    root: Path
    classes: tuple[str, ...]
    rows: pd.DataFrame
    rejected: tuple[tuple[str, str], ...]
    unmatched: int
    listing: str
    fingerprint: str
    window: str = ""

    @property
    def knows_patients(self) -> bool:
        """Tell whether the rows name their patients."""
        return bool((self.rows.patient_key != "").any())

    @property
    def is_gray(self) -> bool:
        """Tell whether every image is gray."""
        return bool((self.rows.channels == 1).all())

    def sources(self) -> list[ImageSource]:
        """Return where the image of each row is."""
        return [ImageSource(self.root / path, window=self.window) for path in self.rows.path]


@dataclass(frozen=True)
class _Inspected:
    pixel_hash: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    reason: str = ""


def load_or_build_manifest(config: Config) -> Manifest:
    """Return the dataset's manifest: the saved one where no file has changed since, else a new one, which is saved."""
    files = list_images(config.dataset_path)
    listing = _fingerprint_listing(files, config)
    saved = _load(config.dataset_dir, config.dataset_path)
    if saved is not None and saved.listing == listing:
        return saved
    manifest = _build(files, listing, config)
    _save(manifest, config.dataset_dir)
    return manifest


def check_rejected(manifest: Manifest, max_rejected_fraction: float) -> None:
    """Raise DataInvalid, naming the files, if more than the allowed fraction of them could not be read."""
    n_files = len(manifest.rows) + len(manifest.rejected)
    # Divided, not multiplied: 0.29 * 100 is a little less than 29.
    if len(manifest.rejected) / n_files <= max_rejected_fraction:
        return
    lines = [f"  {manifest.root / path}: {reason}" for path, reason in manifest.rejected[:20]]
    more = len(manifest.rejected) - len(lines)
    raise DataInvalid(
        f"{len(manifest.rejected)} of {n_files} files are not readable images:\n"
        + "\n".join(lines)
        + (f"\n  ... and {more} more" if more else "")
        + "\nMend or remove them, or allow for them: --set dataset.max_rejected_fraction="
        + f"{_round_up(len(manifest.rejected) / n_files)}"
    )


def _build(files: list[ImageFile], listing: str, config: Config) -> Manifest:
    root = config.dataset_path
    classes = tuple(sorted({file.label for file in files}))
    inspected = list(
        map_files(
            _inspect,
            [ImageSource(root / f.path, window=config.dataset.window) for f in files],
            workers=config.performance.workers,
            description="Reading images",
        )
    )
    key = load_or_make_key(config.paths.state)
    patients = [_find_patient(file, config.dataset.patient_pattern) for file in files]
    rows = pd.DataFrame(
        {
            "image_id": [pseudonym(key, file.path) for file in files],
            "path": [file.path for file in files],
            "label": [classes.index(file.label) for file in files],
            "given_split": [file.split for file in files],
            "patient_key": [pseudonym(key, patient) if patient else "" for patient in patients],
            "pixel_hash": [image.pixel_hash for image in inspected],
            "width": [image.width for image in inspected],
            "height": [image.height for image in inspected],
            "channels": [image.channels for image in inspected],
        }
    )
    readable = np.array([not image.reason for image in inspected])
    rows = rows[readable].reset_index(drop=True)
    if rows.empty:
        raise DataInvalid(f"None of the {len(files)} files in {root} is a readable image: {inspected[0].reason}.")
    rows["group"] = _group(rows)
    unmatched = 0
    if config.dataset.patient_pattern:
        unmatched = int((rows.patient_key == "").sum())
        _check_pattern(rows, config.dataset.patient_pattern)
    return Manifest(
        root=root,
        classes=classes,
        rows=rows,
        rejected=tuple((f.path, i.reason) for f, i in zip(files, inspected, strict=True) if i.reason),
        unmatched=unmatched,
        listing=listing,
        fingerprint=_fingerprint_rows(classes, rows),
        window=config.dataset.window,
    )


def _inspect(source: ImageSource) -> _Inspected:
    try:
        pixels = collapse_gray(decode_image(source))
    except DecodeRejected as error:
        return _Inspected(reason=str(error))
    height, width = pixels.shape[:2]
    return _Inspected(hash_pixels(pixels), width, height, 1 if pixels.ndim == 2 else 3)


def _find_patient(file: ImageFile, pattern: str | None) -> str:
    match = re.search(pattern, Path(file.path).name) if pattern else None
    return "-".join(group for group in match.groups() if group) if match else ""


def _check_pattern(rows: pd.DataFrame, pattern: str) -> None:
    if (rows.patient_key == "").all():
        examples = ", ".join(Path(path).name for path in rows.path[:3])
        raise DataInvalid(
            f"dataset.patient_pattern {pattern!r} matches none of the {len(rows)} file names, for example {examples}."
        )


def _group(rows: pd.DataFrame) -> np.ndarray:
    """Number the connected components of the graph that joins each image to its patient and to its pixels."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(rows)
    own = pd.Series([f"image {index}" for index in range(n)])
    patients = pd.factorize(rows.patient_key.where(rows.patient_key != "", own))[0]
    pixels = pd.factorize(rows.pixel_hash)[0]
    offsets = n + patients.max() + 1
    ends = np.concatenate([n + patients, offsets + pixels])
    edges = (np.ones(2 * n), (np.concatenate([np.arange(n)] * 2), ends))
    size = offsets + pixels.max() + 1
    return connected_components(coo_array(edges, shape=(size, size)), directed=False)[1][:n]


def _fingerprint_listing(files: list[ImageFile], config: Config) -> str:
    listed = [[file.path, file.size_bytes, file.modified_ns] for file in files]
    dataset = config.dataset
    return fingerprint([_VERSION, str(config.dataset_path), dataset.patient_pattern, dataset.window, listed])


def _fingerprint_rows(classes: tuple[str, ...], rows: pd.DataFrame) -> str:
    content = rows[["path", "label", "given_split", "pixel_hash", "group"]].to_csv(index=False)
    return fingerprint([classes, content])


def _save(manifest: Manifest, folder: Path) -> None:
    # pandas keeps attrs in the Parquet file, so that table and description are replaced together.
    rows = manifest.rows.copy()
    rows.attrs = {
        name: getattr(manifest, name)
        for name in ("classes", "rejected", "unmatched", "listing", "fingerprint", "window")
    }
    atomic_write(folder / "manifest.parquet", lambda file: rows.to_parquet(file, index=False, write_page_checksum=True))


def _load(folder: Path, root: Path) -> Manifest | None:
    # Only a shortcut: whatever is wrong with the saved manifest, a new one is made from the images.
    try:
        rows = pd.read_parquet(folder / "manifest.parquet", page_checksum_verification=True)
        described = {**rows.attrs}
        rows.attrs = {}
        described["classes"] = tuple(described["classes"])
        described["rejected"] = tuple((path, reason) for path, reason in described["rejected"])
        manifest = Manifest(root=root, rows=rows, **described)
        return manifest if _fingerprint_rows(manifest.classes, rows) == manifest.fingerprint else None
    # Arrow has errors of its own for damaged files, beside OSError, ValueError, KeyError ...
    except Exception:
        return None


def _round_up(fraction: float) -> float:
    return float(np.ceil(fraction * 1000) / 1000)
