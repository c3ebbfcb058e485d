"""Label the images of a dataset: by file names, a DICOM tag, a table or folders; and say what was seen on the way."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medvision.config import DatasetConfig
from medvision.data.columns import Columns
from medvision.data.folders import WAYS_OUT, Levels, read_levels
from medvision.data.parallel import map_files
from medvision.data.people import refuse_people
from medvision.data.sources import is_dangling
from medvision.data.tables import ImageIndex, Table
from medvision.errors import DataInvalid, DecodeRejected

# Folders that name the class of so many images of a table are class folders.
_ALIKE = 0.9
# How programs write an empty cell. Of "None" nobody can tell: it may be the class of those who have nothing.
_EMPTY = {"nan", "NaN", "NAN", "NA", "<NA>", "N/A", "#N/A", "null", "NULL"}


@dataclass
class Seen:
    """What is to be said of the way to a layout."""

    left_out: Counter[str]
    evidence: list[str] = field(default_factory=list)
    levels: Levels | None = None


def find_labels(
    root: Path,
    paths: Sequence[str],
    dataset: DatasetConfig,
    table: Table | None,
    columns: Columns | None,
    seen: Seen,
    workers: int | None,
) -> tuple[str, dict[str, str]]:
    """Return what the labels are from, and the label of each image that has one."""
    if dataset.label_pattern is not None:
        return "file names", _labels_by_pattern(paths, dataset.label_pattern, seen)
    if dataset.label_tag is not None:
        return "DICOM tag", _labels_by_tag(root, paths, dataset.label_tag, seen, workers)
    if table is not None and columns is not None and columns.label is not None:
        labels = _labels_by_table(paths, table, columns, seen)
        if dataset.labels is None:
            _check_agreement(root, labels, table, columns)
        return "table", labels
    if table is None or columns is None:
        return "class folders", _labels_by_folders(root, paths, seen)
    try:
        labels = _labels_by_folders(root, paths, seen)
    except DataInvalid as error:
        raise _without_label(table, columns, f"{error} ") from None
    if len(set(labels.values())) == 1:
        raise _without_label(table, columns)
    return "class folders", labels


def _without_label(table: Table, columns: Columns, reason: str = "") -> DataInvalid:
    return DataInvalid(
        f"{reason}{table.name} names the images (column {columns.image}), but none of its columns is known as their "
        f"label: {', '.join(table.rows.columns)}. Say which it is: dataset.columns.label."
    )


def search_name(pattern: str, path: str) -> re.Match[str] | None:
    """Search a file's name for a pattern, or the whole path if the pattern holds a /."""
    return re.search(pattern, path if "/" in pattern else path.rpartition("/")[2])


def _labels_by_pattern(paths: Sequence[str], pattern: str, seen: Seen) -> dict[str, str]:
    matches = {path: search_name(pattern, path) for path in paths}
    labels = {path: match[1] for path, match in matches.items() if match and match[1]}
    if not labels:
        examples = ", ".join(paths[:3])
        raise DataInvalid(f"dataset.label_pattern {pattern!r} matches none of the {len(paths)} files: {examples}.")
    seen.left_out["files without a label in their name"] += len(paths) - len(labels)
    seen.evidence.append(f"dataset.label_pattern finds a label in {len(labels):,} of {len(paths):,} file names.")
    return labels


def _labels_by_tag(root: Path, paths: Sequence[str], tag: str, seen: Seen, workers: int | None) -> dict[str, str]:
    files = [root / path for path in paths]
    values = map_files(partial(_read_tag, tag=tag), files, workers=workers, description="Reading tags")
    labels = {path: value for path, value in zip(paths, values, strict=True) if value}
    if not labels:
        raise DataInvalid(f"dataset.label_tag: none of the {len(paths)} files in {root} is DICOM with the tag {tag}.")
    seen.left_out["files without the tag of the label"] += len(paths) - len(labels)
    seen.evidence.append(f"{len(labels):,} of {len(paths):,} files have the tag {tag}.")
    return labels


def _read_tag(file: Path, tag: str) -> str:
    from medvision.data.dicom import read_tags

    try:
        return read_tags(file, [tag]).get(tag, "").strip()
    except DecodeRejected:
        return ""


def _labels_by_table(paths: Sequence[str], table: Table, columns: Columns, seen: Seen) -> dict[str, str]:
    index, twice = ImageIndex(paths), 0
    labels: dict[str, str] = {}
    without_image = without_label = said_empty = 0
    _check_none(table, columns)
    images = find_images(index, table, columns)
    for path, name, label in zip(images, table.rows[columns.image], table.rows[columns.label], strict=True):
        without_image += path is None
        without_label += path is not None and not label
        said_empty += path is not None and label in _EMPTY
        if path is None or not label or label in _EMPTY:
            continue
        if labels.setdefault(path, label) != label:
            raise DataInvalid(
                f"{table.name} gives {name} two labels in {columns.label}: {labels[path]} and {label}. medvision "
                "learns one class an image: keep one row for each."
            )
        twice += 1
    if not labels:
        raise DataInvalid(f"{table.name}: no row with a label in {columns.label} names an image of the dataset.")
    seen.left_out["rows of the table without their image"] += without_image
    seen.left_out["rows of the table without a label"] += without_label
    seen.left_out["rows of the table whose label is NaN, NA or null"] += said_empty
    seen.left_out["rows that repeat another"] += twice - len(labels)
    seen.left_out["images without a row, or a label, in the table"] += len(paths) - len(labels)
    seen.evidence.append(
        f"{table.name}: column {columns.image} names {len(labels):,} of {len(paths):,} images, "
        f"{columns.label} their labels."
    )
    return _check_labels(labels, table, columns)


def _check_none(table: Table, columns: Columns) -> None:
    n_cells = int((table.rows[columns.label] == "None").sum())
    if n_cells:
        raise DataInvalid(
            f"{table.name}: column {columns.label} says None in {n_cells} cells: no label, or the class of those who "
            "have nothing? Leave the cells empty, or give the class another word (normal)."
        )


def find_images(index: ImageIndex, table: Table, columns: Columns) -> list[str | None]:
    """Return the image of each row of a table, None where it is missing."""
    names = table.rows[columns.image]
    found = index.find_all(names)
    for name, paths in zip(names, found, strict=True):
        if len(paths) > 1:
            raise DataInvalid(
                f"{table.name}: {name} in column {columns.image} stands for {len(paths)} files: "
                f"{', '.join(sorted(paths)[:3])}. Give their paths, or a column that has them: dataset.columns.image."
            )
    return [next(iter(paths), None) for paths in found]


def _check_labels(labels: dict[str, str], table: Table, columns: Columns) -> dict[str, str]:
    values = set(labels.values())
    several = next((value for value in values if re.search(r"[|;]", value)), None)
    if several:
        raise DataInvalid(
            f"{table.name}: column {columns.label} holds several labels in a cell: {several}. medvision learns one "
            "class an image: choose one of them in a column of its own (dataset.columns.label)."
        )
    if len(values) > max(20, len(labels) / 4):
        raise DataInvalid(
            f"{table.name}: column {columns.label} has {len(values)} values for {len(labels)} images: those are no "
            "classes. Say which column is the label: dataset.columns.label."
        )
    # What was an integer column with gaps elsewhere: 1.0 is class 1.
    if all(re.fullmatch(r"-?\d+\.0+", value) for value in values):
        return {path: label.partition(".")[0] for path, label in labels.items()}
    return labels


def _check_agreement(root: Path, labels: dict[str, str], table: Table, columns: Columns) -> None:
    """Refuse a table that was only found, in folders that look like its classes but say otherwise of some images."""
    try:
        levels = read_levels(root, list(labels))
    except DataInvalid:
        return
    folders = {path: path.split("/")[levels.label] for path in labels if levels and path.count("/") > levels.label}
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for path, folder in folders.items():
        inside[folder][labels[path]] += 1
    usual = {folder: counts.most_common(1)[0] for folder, counts in inside.items()}
    n_agreeing = sum(count for _, count in usual.values())
    if len(usual) < 2 or n_agreeing == len(folders):
        return
    # Folders of hospitals or of parts hold the same classes each, and in no such order.
    is_alike = len({label for label, _ in usual.values()}) == len(usual) and n_agreeing > _ALIKE * len(folders)
    if is_alike or set(usual) & set(labels.values()):
        raise DataInvalid(
            f"{root} has class folders ({', '.join(sorted(usual)[:4])}) and {table.name}, whose column {columns.label} "
            "gives some images another label. Give dataset.labels to take the table's; take the table out of the "
            "folder for those of the folders."
        )


def _labels_by_folders(root: Path, paths: Sequence[str], seen: Seen) -> dict[str, str]:
    levels = read_levels(root, paths)
    if levels is None:
        names = ", ".join(paths[:3])
        raise DataInvalid(
            f"No images in class folders: {root} holds {len(paths)} images ({names}), and nothing names their classes. "
            f"Expected a folder for each class ({root}/CLASS/IMAGE), or a table beside them. {WAYS_OUT}"
            + "".join(f" {note}" for note in seen.evidence)
        )
    refuse_people(root, paths, levels.label)
    seen.levels = levels
    folders = {path: path.split("/")[:-1] for path in paths}
    labels = {path: parts[levels.label] for path, parts in folders.items() if len(parts) > levels.label}
    above = len(paths) - len(labels)
    if above > len(labels):
        raise DataInvalid(
            f"{root}: {above} images lie above the class folders, and only {len(labels)} in them. {WAYS_OUT}"
        )
    seen.left_out["images above the class folders"] += above
    _check_not_empty(sorted({root.joinpath(*folders[path][: levels.label]) for path in labels}))
    classes = sorted(set(labels.values()))
    shown = ", ".join(classes[:10]) + (" ..." if len(classes) > 10 else "")
    seen.evidence.append(f"Folder {levels.label + 1} of the path names the class: {shown}.")
    return labels


def _check_not_empty(parents: Sequence[Path]) -> None:
    # A folder of other files (notes, annotations) is no class; one without any is a copy that has failed, and so is one
    # of links to what is not there.
    found = [entry for parent in parents for entry in sorted(parent.iterdir()) if not entry.name.startswith(".")]
    empty = [str(entry) for entry in found if entry.is_dir() and all(map(is_dangling, entry.iterdir()))]
    empty += [str(entry) for entry in found if is_dangling(entry) and not entry.suffix]
    if empty:
        raise DataInvalid(
            f"Class folder {', '.join(empty)} is empty, or has links to what is not there. Add its images, or remove "
            "the folder."
        )
