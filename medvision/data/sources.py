"""Find the images of a dataset on disk: which file, which class, and which split, if it has one already."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medvision.errors import DataInvalid

SPLIT_SPELLINGS = {
    "train": {"train", "training", "trn", "train_set", "training_set"},
    "val": {"val", "valid", "validation", "dev", "eval", "val_set", "validation_set"},
    "test": {"test", "testing", "tst", "test_set", "testing_set"},
}
# Whatever else lies in a class folder is tried as an image, so that nothing is left out in silence.
_NO_IMAGES = {".csv", ".db", ".html", ".ini", ".json", ".md", ".pdf", ".tsv", ".txt", ".xml", ".yaml", ".yml"}


@dataclass(frozen=True)
class ImageFile:
    """One file: its path relative to the dataset's folder, its class, and its split ("" if it has none)."""

    path: str
    label: str
    split: str
    size_bytes: int
    modified_ns: int


def list_images(root: Path) -> list[ImageFile]:
    """List the images of class folders, or of split folders of class folders, sorted by path.

    Raises DataInvalid: no images, one class only, classes that differ by case only, a class that is missing from the
    train folder, or split folders beside class folders.
    """
    splits = _split_folders(root)
    class_folders = [
        (split, folder) for split, parent in (splits.items() if splits else [("", root)]) for folder in _folders(parent)
    ]
    files = [file for split, folder in class_folders for file in _files(root, folder, split)]
    if not files:
        raise DataInvalid(f"No images in {root}. Expected a folder of images for each class: {root}/CLASS/IMAGE.")
    _check_not_empty([folder for _, folder in class_folders])
    _check_classes(files)
    return sorted(files, key=lambda file: file.path)


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    others = []
    for folder in _folders(root):
        name = folder.name.lower().replace("-", "_").replace(" ", "_")
        split = next((split for split, spellings in SPLIT_SPELLINGS.items() if name in spellings), None)
        if split is None:
            others.append(folder)
        elif split in found:
            raise DataInvalid(f"{found[split]} and {folder} both look like the {split} split. Keep one of them.")
        else:
            found[split] = folder
    with_images = [folder.name for folder in others if found and any(_files(root, folder, ""))]
    if with_images:
        raise DataInvalid(
            f"{root} has split folders ({', '.join(f.name for f in found.values())}) beside others with images "
            f"({', '.join(with_images)}). Expected either split folders or class folders."
        )
    if found and "train" not in found:
        raise DataInvalid(f"{root} has {', '.join(f.name for f in found.values())} but no train folder. Add one.")
    return found


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders that may be images, in no order."""
    for parent, subfolders, names in os.walk(folder):
        # .ipynb_checkpoints and the like hold copies.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() not in _NO_IMAGES and path.is_file():
                yield path


def _files(root: Path, class_folder: Path, split: str) -> list[ImageFile]:
    files = []
    for path in walk_files(class_folder):
        status = path.stat()
        relative = path.relative_to(root).as_posix()
        files.append(ImageFile(relative, class_folder.name, split, status.st_size, status.st_mtime_ns))
    return files


def _check_not_empty(class_folders: list[Path]) -> None:
    # A folder of other files (notes, annotations) is no class; one without any is a copy that has failed.
    empty = [str(folder) for folder in class_folders if not any(folder.iterdir())]
    if empty:
        raise DataInvalid(f"Class folder {', '.join(empty)} is empty. Add its images, or remove the folder.")


def _check_classes(files: list[ImageFile]) -> None:
    spellings = defaultdict(set)
    splits = defaultdict(set)
    for file in files:
        spellings[file.label.casefold()].add(file.label)
        splits[file.label].add(file.split)
    for names in spellings.values():
        if len(names) > 1:
            raise DataInvalid(f"Classes {' and '.join(sorted(names))} differ by case only. Give each class one name.")
    if len(spellings) == 1:
        raise DataInvalid(f"Only one class was found: {files[0].label}. A classifier needs at least two class folders.")
    for label, present in splits.items():
        if "" not in present and "train" not in present:
            raise DataInvalid(f"Class {label} has images in {', '.join(sorted(present))} but none in train.")
