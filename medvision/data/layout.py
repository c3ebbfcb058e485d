"""Find out how a dataset is laid out: which file is an image of which class, split and patient, and what says so.

Class folders, also below split folders, sites or one folder around all; a table of labels; labels in file names; a
DICOM tag. What is given in the settings wins; what is found is said, and what could be meant in two ways is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medvision.config import DatasetConfig
from medvision.data.columns import Columns, clean_name, coarsen_age
from medvision.data.folders import WAYS_OUT, Levels
from medvision.data.labelling import Seen, find_images, find_labels
from medvision.data.sources import Found, find_files, split_of, splits_in
from medvision.data.table_choice import choose_table
from medvision.data.tables import ImageIndex, Table
from medvision.errors import DataInvalid


@dataclass(frozen=True)
class ImageFile:
    """One file: its path relative to the dataset's folder, its class, and what else is known ("" if not).

    ``patient`` is an identifier as the table has it; ``subgroups`` are cells by the cleaned name of their column.
    """

    path: str
    label: str
    split: str = ""
    patient: str = ""
    subgroups: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How a dataset is laid out.

    ``kind``: class folders, table, file names or DICOM tag, which the labels are from. ``evidence`` says what was seen,
    for people: it may name files. ``files`` are sorted by path. ``left_out`` counts files, and rows of the table, that
    are not used, by reason; it names none. ``columns`` and ``table`` are those of the table, if there is one.
    """

    kind: str
    evidence: tuple[str, ...]
    files: tuple[ImageFile, ...]
    left_out: tuple[tuple[str, int], ...]
    table: Table | None
    columns: Columns | None


def detect_layout(root: Path, dataset: DatasetConfig, *, workers: int | None = None) -> Layout:
    """List the images of a folder, however it is laid out.

    Raises DataInvalid: no images, nothing that names their classes, two things that name them differently, one class
    only, classes that differ by case only, or a class that is missing from the train split.
    """
    return read_layout(root, find_files(root), dataset, workers=workers)


def read_layout(root: Path, found: Found, dataset: DatasetConfig, *, workers: int | None = None) -> Layout:
    """Do the same for what ``find_files`` has found."""
    paths = [file.path for file in found.images]
    if not paths:
        raise DataInvalid(f"No images in {root}. Expected a folder of images for each class: {root}/CLASS/IMAGE.")
    seen = Seen(left_out=Counter(dict(found.left_out)))
    table, columns = choose_table(root, found, dataset, seen)
    kind, labels = find_labels(root, paths, dataset, table, columns, seen, workers)
    files = [ImageFile(path, label) for path, label in labels.items()]
    if table is not None and columns is not None:
        files = _join(files, table, columns, ImageIndex(paths), seen)
    files = _with_splits(root, files, seen)
    _check_classes(files)
    left_out = tuple((reason, count) for reason, count in seen.left_out.items() if count)
    return Layout(kind, tuple(seen.evidence), tuple(sorted(files, key=_by_path)), left_out, table, columns)


def _join(files: list[ImageFile], table: Table, columns: Columns, index: ImageIndex, seen: Seen) -> list[ImageFile]:
    """Take split, patient and subgroups from the table."""
    # The same column may hold two of them: a file a patient, named by the patient.
    wanted = [name for name in dict.fromkeys((columns.patient, columns.split, *columns.subgroups)) if name is not None]
    cells: dict[str, dict[str, str]] = {}
    images = find_images(index, table, columns)
    rows = zip(images, table.rows[columns.image], table.rows[wanted].to_dict("records"), strict=True)
    for path, image, row in rows:
        if path is not None and cells.setdefault(path, row) != row:
            different = next(name for name in wanted if cells[path][name] != row[name])
            raise DataInvalid(
                f"{table.name} has two rows for {image}, with {cells[path][different]} and {row[different]} in "
                f"{different}. Keep one row an image."
            )
    seen.evidence += [f"{table.name}: column {columns.patient} names the patients."] if columns.patient else []
    seen.evidence += [f"{table.name}: column {columns.split} gives the split."] if columns.split else []
    if columns.subgroups:
        seen.evidence.append(f"{table.name}: subgroups by {', '.join(columns.subgroups)}.")
    seen.evidence += columns.unfit
    return [_with_cells(file, cells.get(file.path, {}), columns) for file in files]


def _with_cells(file: ImageFile, cells: dict[str, str], columns: Columns) -> ImageFile:
    split = cells.get(columns.split, "") if columns.split else ""
    if split and not split_of(split):
        raise DataInvalid(f"Column {columns.split} says {split!r}; expected train, val or test. Name another column.")
    return replace(
        file,
        split=split_of(split),
        patient=cells.get(columns.patient, "") if columns.patient else "",
        subgroups={clean_name(name): coarsen_age(name, cells.get(name, "")) for name in columns.subgroups},
    )


def _with_splits(root: Path, files: list[ImageFile], seen: Seen) -> list[ImageFile]:
    """Take the split from the table, else from the folders, else from the file names; and the site from folders."""
    levels = seen.levels
    if levels is not None and levels.site is not None:
        site = levels.site
        seen.evidence.append(f"Folder {site + 1} of the path holds the same classes each time: subgroup 'site'.")
        files = [replace(f, subgroups={"site": f.path.split("/")[site], **f.subgroups}) for f in files]
    by_folder = _splits_by_folder(files, levels, seen)
    if any(file.split for file in files):
        return _check_splits(files, by_folder)
    splits = by_folder or _splits_by_name(files, seen)
    return [replace(file, split=splits[file.path]) for file in files] if splits else files


def _splits_by_folder(files: Sequence[ImageFile], levels: Levels | None, seen: Seen) -> dict[str, str]:
    level = levels.split if levels else _split_level(files)
    if level is None:
        return {}
    seen.evidence.append(f"Folder {level + 1} of the path names the split.")
    return {file.path: split_of(file.path.split("/")[level]) for file in files}


def _split_level(files: Sequence[ImageFile]) -> int | None:
    """Return at which depth the folders are splits, where the labels are from elsewhere; None if nowhere."""
    for level in range(3):
        if any(file.path.count("/") <= level for file in files):
            return None
        splits = {split_of(file.path.split("/")[level]) for file in files}
        if "" not in splits and "train" in splits:
            return level
    return None


def _splits_by_name(files: Sequence[ImageFile], seen: Seen) -> dict[str, str]:
    """Return the splits if each file name holds one, train and another among them; else none."""
    splits = {}
    for file in files:
        found = splits_in(file.path.rpartition("/")[2])
        if len(found) != 1:
            return {}
        splits[file.path] = found.pop()
    counts = Counter(splits.values())
    if "train" not in counts or len(counts) < 2:
        return {}
    sizes = ", ".join(f"{split} {count:,}" for split, count in sorted(counts.items()))
    seen.evidence.append(f"Each file name holds its split: {sizes}.")
    return splits


def _check_splits(files: list[ImageFile], by_folder: dict[str, str]) -> list[ImageFile]:
    """Refuse splits of a table that are not for all images, or not those of the folders, if there are several."""
    without = sum(not file.split for file in files)
    if without:
        raise DataInvalid(f"The table gives {without} of {len(files)} images no split. Give all of them one, or none.")
    n_elsewhere = sum(file.split != by_folder.get(file.path, file.split) for file in files)
    if n_elsewhere and len(set(by_folder.values())) > 1:
        raise DataInvalid(
            f"{n_elsewhere} of {len(files)} images are in another split by their folder than by the table. Make them "
            "agree: take the column of splits out of the table, or the images out of the split folders."
        )
    return files


def _check_classes(files: Sequence[ImageFile]) -> None:
    spellings = defaultdict(set)
    splits = defaultdict(set)
    for file in files:
        spellings[file.label.casefold()].add(file.label)
        splits[file.label].add(file.split)
    for names in spellings.values():
        if len(names) > 1:
            raise DataInvalid(f"Classes {' and '.join(sorted(names))} differ by case only. Give each class one name.")
    if len(spellings) == 1:
        raise DataInvalid(f"Only one class was found: {files[0].label}. A classifier needs at least two. {WAYS_OUT}")
    for label, present in splits.items():
        if "" not in present and "train" not in present:
            raise DataInvalid(f"Class {label} has images in {', '.join(sorted(present))} but none in train.")


def _by_path(file: ImageFile) -> str:
    return file.path
