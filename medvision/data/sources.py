"""Find what may be an image in a dataset's folder, and the tables beside the images; masks are told apart."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medvision.errors import DataInvalid

SPLIT_SPELLINGS = {
    "train": {"train", "training", "trn", "train_set", "training_set"},
    "val": {"val", "valid", "validation", "dev", "eval", "val_set", "validation_set"},
    "test": {"test", "testing", "tst", "test_set", "testing_set"},
}
TABLES = (".csv", ".tsv", ".parquet")
# Whatever else lies in the folder is tried as an image, so that nothing is left out in silence.
_NO_IMAGES = {".bval", ".bvec", ".db", ".html", ".ini", ".json", ".md", ".pdf", ".txt", ".xml", ".yaml", ".yml"}
_NO_IMAGE_NAMES = {"DICOMDIR"}

_SUFFIX = re.compile(r"\.(nii\.gz|nii|dcm|dicom|ima|png|jpe?g|jfif|bmp|tiff?|mpo)$", re.IGNORECASE)
_SPLIT_IN_NAME = re.compile(r"(?:^|[_-])(train|training|val|valid|validation|test|testing)(?=[_.-])", re.IGNORECASE)
_MASK = re.compile(r"(?P<stem>.+?)[ _-](?:mask|seg|segmentation)(?:[ _-]?\d+)?", re.IGNORECASE)
_MASK_FOLDERS = {"mask", "masks", "seg", "segs", "segmentation", "segmentations"}


@dataclass(frozen=True)
class FoundFile:
    """One file: its path relative to the dataset's folder, with / between the parts, and what tells of a change."""

    path: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Found:
    """What a folder holds: files that may be images, and tables, both sorted by path; and what was left, by reason."""

    images: tuple[FoundFile, ...]
    tables: tuple[FoundFile, ...]
    left_out: tuple[tuple[str, int], ...]


def find_files(root: Path) -> Found:
    """List the images and tables of a folder; a file with the name of another and ``_mask`` is no image of its own.

    Raises DataInvalid for a file name that is no UTF-8, which could be written into no record, and for a folder that
    can't be listed.
    """
    left_out: Counter[str] = Counter()
    found = list(_walk(root, left_out))
    files = [_describe(path, root) for path in found if not is_dangling(path)]
    left_out["links to what is not there"] = len(found) - len(files)
    tables = [file for file in files if file.path.lower().endswith(TABLES)]
    images = [file for file in files if not file.path.lower().endswith(TABLES)]
    masks = _find_masks([file.path for file in images])
    kept = [file for file in images if file.path not in masks]
    left_out["masks of images beside them"] = len(masks)
    return Found(tuple(sorted(kept, key=_by_path)), tuple(sorted(tables, key=_by_path)), tuple(left_out.items()))


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below that may be images, and links to what is not there; in no order."""
    return (path for path in _walk(folder, Counter()) if path.suffix.lower() not in TABLES)


def split_of(name: str) -> str:
    """Return the split that a folder's name, or a table's cell, stands for; "" if none."""
    name = re.sub(r"[ -]", "_", name.strip().lower())
    return next((split for split, spellings in SPLIT_SPELLINGS.items() if name in spellings), "")


def splits_in(name: str) -> set[str]:
    """Return the splits that words in a file's name stand for."""
    return {split_of(word) for word in _SPLIT_IN_NAME.findall(name)}


def without_suffix(name: str) -> str:
    """Return a file's name, or path, without the suffix of an image; other dots stay, as in a DICOM UID."""
    return _SUFFIX.sub("", name)


def _walk(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    # Folders of a dataset are often links to other disks; a link to a folder above would go round for ever.
    seen = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            left_out["links to a folder that is there already"] += 1
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # .ipynb_checkpoints and __MACOSX hold copies.
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        # Of a folder and a link to it the folder is kept, on any disk.
        links = {name for name in subfolders if os.path.islink(os.path.join(parent, name))}
        subfolders.sort(key=lambda name, links=links: (name in links, name))  # type: ignore[misc]

        for name in names:
            path = Path(parent, name)
            is_hidden = name.startswith(".") or name in _NO_IMAGE_NAMES
            if is_hidden or path.suffix.lower() in _NO_IMAGES:
                continue
            if path.is_file() or is_dangling(path):
                yield path


def _refuse(error: OSError) -> None:
    # A folder that is not there holds nothing.
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise DataInvalid(
            f"Folder {error.filename} can't be listed: {error.strerror}. Make it readable, or take it out."
        )


def is_dangling(path: Path) -> bool:
    """Tell whether a path is a link to what is not there."""
    return path.is_symlink() and not path.exists()


def _describe(path: Path, root: Path) -> FoundFile:
    relative = path.relative_to(root).as_posix()
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise DataInvalid(f"The name of {os.fsencode(path)!r} is not UTF-8. Rename the file.") from None
    status = path.stat()
    return FoundFile(relative, status.st_size, status.st_mtime_ns)


def _by_path(file: FoundFile) -> str:
    return file.path


def _find_masks(paths: Iterable[str]) -> set[str]:
    """Return the paths of masks: named as an image beside them, or in a folder of masks beside one of images."""
    split = {path: (PurePosixPath(path).parent, without_suffix(PurePosixPath(path).name)) for path in paths}
    beside = Counter(split.values())
    above = Counter(
        (folder.parent, stem) for folder, stem in split.values() if folder.name.lower() not in _MASK_FOLDERS
    )
    masks = set()
    for path, (folder, stem) in split.items():
        name = _MASK.fullmatch(stem)
        image = name["stem"] if name else stem
        in_masks = folder.name.lower() in _MASK_FOLDERS
        has_image_above = above[folder.parent, image] or beside[folder.parent, image]
        if (name and beside[folder, image]) or (in_masks and has_image_above):
            masks.add(path)
    return masks
