"""The manifest: one row an image, with label, patient, group of images that belong together, and pixel hash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from medvision.config import Config
from medvision.data.columns import OWN, as_values
from medvision.data.decode import ImageSource
from medvision.data.grouping import group_images
from medvision.data.inspection import InspectedFile, inspect_file
from medvision.data.labelling import search_name
from medvision.data.layout import ImageFile, Layout, read_layout
from medvision.data.parallel import map_files
from medvision.data.pseudonyms import load_or_make_key, pseudonym
from medvision.data.saved_manifest import load_rows, save_names, save_rows
from medvision.data.sources import Found, find_files
from medvision.errors import DataInvalid
from medvision.files import fingerprint

# Raised whenever rows would come out differently from the same files.
_VERSION = 3


@dataclass(frozen=True)
class Rejected:
    """An image that could not be read: its id, the path of its file relative to the dataset's folder, and why."""

    image_id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """All images of a dataset.

    ``rows`` has a row an image, sorted by path and frame, with the columns image_id and patient_key (keyed hashes;
    patient_key is "" where the patient is not known), path (relative to ``root``), frame (in its file), label (index
    into ``classes``), given_split ("" if none), pixel_hash, group (images of one patient, of one file or of the same
    pixels share it), width, height, channels (1 also for a colour file that holds a gray image), and a column for each
    subgroup that the dataset tells apart (numbers, NaN if unknown, or texts, "" if unknown).

    ``unmatched`` counts the rows without a patient where a pattern or a column should have named it. ``left_out``
    counts files, and rows of the dataset's table, that are no images of it, by reason. ``window``: what CT values are
    seen through, "" for the files' own.

    A path may name a patient: paths are held in memory, for the console, and are in no record that is saved.
    """

    root: Path
    classes: tuple[str, ...]
    rows: pd.DataFrame
    rejected: tuple[Rejected, ...]
    unmatched: int
    left_out: tuple[tuple[str, int], ...]
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

    @property
    def subgroups(self) -> tuple[str, ...]:
        """Return the columns of subgroups that the dataset brought with it."""
        return tuple(column for column in self.rows.columns if column not in OWN)

    def sources(self) -> list[ImageSource]:
        """Return where the image of each row is."""
        places = zip(self.rows.path, self.rows.frame, strict=True)
        return [self._source(path, frame) for path, frame in places]

    def source(self, row: int) -> ImageSource:
        """Return where the image of one row is."""
        return self._source(self.rows.path.iloc[row], self.rows.frame.iloc[row])

    def _source(self, path: str, frame: int) -> ImageSource:
        return ImageSource(self.root / path, int(frame), self.window)

    def names(self) -> dict[str, str]:
        """Return the path of each image, read or rejected, by its id: for the console, and never for a record."""
        named = dict(zip(self.rows.image_id, self.rows.path, strict=True))
        return {**named, **{image.image_id: image.path for image in self.rejected}}


def load_or_build_manifest(config: Config) -> Manifest:
    """Return the dataset's manifest: the saved one where no file has changed since, else a new one, which is saved.

    Beside it lies files.csv, which names the file of each image_id: for its owner alone, and not to be passed on.
    """
    found = find_files(config.dataset_path)
    key = load_or_make_key(config.paths.state)
    listing = _fingerprint_listing(found, config)
    saved = _load(config, found, key, listing)
    if saved is not None:
        return saved
    manifest = _build(found, key, listing, config)
    save_rows(manifest.rows, _description(manifest), config.dataset_dir)
    save_names(manifest.rows, [(image.image_id, image.path) for image in manifest.rejected], config.dataset_dir)
    return manifest


def check_rejected(manifest: Manifest, max_rejected_fraction: float) -> None:
    """Raise DataInvalid, naming the files, if more than the allowed fraction of images could not be read."""
    n_images = len(manifest.rows) + len(manifest.rejected)
    # Divided, not multiplied: 0.29 * 100 is a little less than 29.
    if len(manifest.rejected) / n_images <= max_rejected_fraction:
        return
    lines = [f"  {manifest.root / image.path}: {image.reason}" for image in manifest.rejected[:20]]
    more = len(manifest.rejected) - len(lines)
    raise DataInvalid(
        f"{len(manifest.rejected)} of {n_images} files are not readable images:\n"
        + "\n".join(lines)
        + (f"\n  ... and {more} more" if more else "")
        + "\nMend or remove them, or allow for them: --set dataset.max_rejected_fraction="
        + f"{_round_up(len(manifest.rejected) / n_images)}"
    )


def _build(found: Found, key: bytes, listing: str, config: Config) -> Manifest:
    root, workers = config.dataset_path, config.performance.workers
    layout = read_layout(root, found, config.dataset, workers=workers)
    patients = _find_patients(layout, config.dataset.patient_pattern)
    paths = [root / file.path for file in layout.files]
    inspect = partial(inspect_file, key=key, window=config.dataset.window)
    inspected = list(map_files(inspect, paths, workers=workers, description="Reading images"))
    classes = _sort_classes({file.label for file in layout.files})
    rows = _make_rows(layout.files, inspected, patients, classes, key)
    reasons = rows.pop("reason")
    rejected = tuple(
        Rejected(image_id, path, reason)
        for image_id, path, reason in zip(rows.image_id, rows.path, reasons, strict=True)
        if reason
    )
    rows = rows[(reasons == "").to_numpy()].reset_index(drop=True)
    if rows.empty:
        raise DataInvalid(f"None of the {len(paths)} files in {root} is a readable image: {rejected[0].reason}.")
    rows["group"] = group_images(rows)
    rows = _with_subgroups(rows, layout.files)
    is_asked_for = config.dataset.patient_pattern or (layout.columns and layout.columns.patient)
    return Manifest(
        root=root,
        classes=classes,
        rows=rows,
        rejected=rejected,
        unmatched=int((rows.patient_key == "").sum()) if is_asked_for else 0,
        left_out=layout.left_out,
        listing=listing,
        fingerprint=_fingerprint_rows(classes, rows),
        window=config.dataset.window,
    )


def _find_patients(layout: Layout, pattern: str | None) -> list[str]:
    """Return the identifier of each file's patient, "" if unknown: from a given column, the pattern, a found column.

    Raises DataInvalid if the pattern is found in no name.
    """
    by_pattern = [_search_patient(file.path, pattern) for file in layout.files]
    if pattern and not any(by_pattern):
        examples = ", ".join(Path(file.path).name for file in layout.files[:3])
        raise DataInvalid(
            f"dataset.patient_pattern {pattern!r} matches none of the {len(layout.files)} file names, for example "
            f"{examples}."
        )
    column_first = layout.columns is not None and layout.columns.given_patient
    pairs = zip(layout.files, by_pattern, strict=True)
    return [(file.patient or found) if column_first else (found or file.patient) for file, found in pairs]


def _search_patient(path: str, pattern: str | None) -> str:
    match = search_name(pattern, path) if pattern else None
    return "-".join(group for group in match.groups() if group) if match else ""


def _make_rows(
    files: Sequence[ImageFile],
    inspected: Sequence[InspectedFile],
    patients: Sequence[str],
    classes: tuple[str, ...],
    key: bytes,
) -> pd.DataFrame:
    """Return a row for each frame of each file, rejected ones among them, with the reason."""
    rows = []
    for file, images, patient in zip(files, inspected, patients, strict=True):
        file_id, several = pseudonym(key, file.path), len(images.frames) > 1
        # A volume is of one patient, whoever it is.
        by_file = images.patient_key or (pseudonym(key, f"file {file.path}") if several else "")
        patient_key = pseudonym(key, patient) if patient else by_file
        rows += [
            {
                "image_id": f"{file_id}-{frame}" if several else file_id,
                "path": file.path,
                "frame": frame,
                "label": classes.index(file.label),
                "given_split": file.split,
                "patient_key": patient_key,
                "pixel_hash": image.pixel_hash,
                "width": image.width,
                "height": image.height,
                "channels": image.channels,
                "reason": image.reason,
            }
            for frame, image in enumerate(images.frames)
        ]
    return pd.DataFrame(rows)


def _with_subgroups(rows: pd.DataFrame, files: Sequence[ImageFile]) -> pd.DataFrame:
    by_path = {file.path: file.subgroups for file in files}
    for name in files[0].subgroups:
        rows[name] = as_values([by_path[path].get(name, "") for path in rows.path])
    return rows


def _sort_classes(names: set[str]) -> tuple[str, ...]:
    """Sort classes by name, numbers by value: 2 before 10."""
    are_numbers = all(re.fullmatch(r"-?\d+", name) for name in names)
    return tuple(sorted(names, key=int) if are_numbers else sorted(names))


def _fingerprint_listing(found: Found, config: Config) -> str:
    said = config.dataset.model_dump(
        mode="json", include={"labels", "columns", "label_pattern", "label_tag", "patient_pattern", "window"}
    )
    table = config.dataset.labels
    status = table.stat() if table is not None and table.is_file() else None
    listed = [[file.path, file.size_bytes, file.modified_ns] for file in (*found.images, *found.tables)]
    given = [status.st_size, status.st_mtime_ns] if status else []
    return fingerprint([_VERSION, str(config.dataset_path), said, given, listed])


def _fingerprint_rows(classes: tuple[str, ...], rows: pd.DataFrame) -> str:
    subgroups = [column for column in rows.columns if column not in OWN]
    content = rows[["path", "frame", "label", "given_split", "pixel_hash", "group", *subgroups]].to_csv(index=False)
    return fingerprint([classes, content])


def _description(manifest: Manifest) -> dict[str, object]:
    described = {
        name: getattr(manifest, name) for name in ("classes", "unmatched", "left_out", "listing", "fingerprint")
    }
    return {**described, "rejected": [(image.image_id, image.reason) for image in manifest.rejected]}


def _load(config: Config, found: Found, key: bytes, listing: str) -> Manifest | None:
    # Only a shortcut: whatever is wrong with the saved manifest, a new one is made from the images.
    try:
        paths = {pseudonym(key, file.path): file.path for file in found.images}
        rows, described = load_rows(config.dataset_dir, paths)
        if described["listing"] != listing:
            return None
        rejected = tuple(Rejected(i, paths[i.partition("-")[0]], reason) for i, reason in described["rejected"])
        manifest = Manifest(
            root=config.dataset_path,
            classes=tuple(described["classes"]),
            rows=rows,
            rejected=rejected,
            unmatched=described["unmatched"],
            left_out=tuple((reason, count) for reason, count in described["left_out"]),
            listing=listing,
            fingerprint=described["fingerprint"],
            window=config.dataset.window,
        )
        return manifest if _fingerprint_rows(manifest.classes, rows) == manifest.fingerprint else None
    # Arrow has errors of its own for damaged files, beside OSError, ValueError, KeyError ...
    except Exception:
        return None


def _round_up(fraction: float) -> float:
    return float(np.ceil(fraction * 1000) / 1000)
