"""Turn a MedMNIST file (Yang et al., Scientific Data 2023) into PNG images with a table of labels and splits."""

from __future__ import annotations

import csv
import math
import tokenize
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from medvision.data.sources import SPLIT_SPELLINGS
from medvision.errors import DataInvalid

_MIN_SIDE, _MAX_SIDE = 16, 1024
# TissueMNIST, the largest, has 236,386 images.
_MAX_IMAGES = 1_000_000


def is_npz(file: zipfile.ZipFile) -> bool:
    """Tell whether a zip holds NumPy arrays only."""
    names = file.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def unpack_npz(file: zipfile.ZipFile, folder: Path, *, spend: Callable[[int], None]) -> None:
    """Write the images as images/SPLIT_NUMBER.png and labels.csv (image, label, split); one image is in memory at once.

    Read are train_images, train_labels and the same of val and test; ``spend`` is told of bytes before they are
    written. No pickle is ever loaded.

    Raises DataInvalid: arrays missing or of another type or shape; volumes, which MedMNIST's 3D files hold; several
    labels an image.
    """
    names = set(file.namelist())
    splits = [split for split in SPLIT_SPELLINGS if f"{split}_images.npy" in names]
    if not splits:
        raise DataInvalid(
            f"{file.filename} holds {', '.join(sorted(names)[:6])}. Expected train_images, train_labels and the same "
            "of val and test, as in MedMNIST."
        )
    (folder / "images").mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["image", "label", "split"])
        for split in splits:
            labels = _read_labels(file, split)
            for number, pixels in enumerate(_read_images(file, split, len(labels))):
                spend(pixels.nbytes)
                name = f"images/{split}_{number:06d}.png"
                Image.fromarray(pixels).save(folder / name)
                writer.writerow([name, int(labels[number]), split])


def _read_labels(file: zipfile.ZipFile, split: str) -> np.ndarray:
    with _opened(file, f"{split}_labels.npy") as (source, shape, dtype):
        if dtype.kind not in "iub":
            raise DataInvalid(f"{split}_labels has type {dtype}; expected integers.")
        if len(shape) == 2 and shape[1] > 1:
            raise DataInvalid(
                f"{split}_labels has {shape[1]} labels an image, as ChestMNIST does. medvision learns one class an "
                "image: choose one of them, or an image's main finding."
            )
        if len(shape) not in (1, 2) or not 0 < shape[0] <= _MAX_IMAGES:
            raise DataInvalid(f"{split}_labels has shape {shape}; expected (n, 1), n at most {_MAX_IMAGES:,}.")
        return np.frombuffer(_read_exactly(source, shape[0] * dtype.itemsize, split), dtype)


def _read_images(file: zipfile.ZipFile, split: str, n_labels: int) -> Iterator[np.ndarray]:
    with _opened(file, f"{split}_images.npy") as (source, shape, dtype):
        _check_images(split, shape, dtype, n_labels)
        form = shape[1:3] if shape[-1] == 1 else shape[1:]
        for _ in range(shape[0]):
            yield np.frombuffer(_read_exactly(source, math.prod(form), split), dtype).reshape(form)


def _check_images(split: str, shape: tuple[int, ...], dtype: np.dtype, n_labels: int) -> None:
    if dtype != np.uint8:
        raise DataInvalid(f"{split}_images has type {dtype}; expected uint8.")
    if len(shape) == 5 or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise DataInvalid(
            f"{split}_images has shape {shape}: volumes, and medvision learns images. Save each as a NIfTI file in a "
            "folder of its class, and its slices are read."
        )
    if len(shape) not in (3, 4) or not all(_MIN_SIDE <= side <= _MAX_SIDE for side in shape[1:3]):
        raise DataInvalid(
            f"{split}_images has shape {shape}; expected (n, height, width) or (n, height, width, 3), sides of "
            f"{_MIN_SIDE} to {_MAX_SIDE}."
        )
    if shape[0] != n_labels:
        raise DataInvalid(f"{split}_images has {shape[0]} images, but {split}_labels {n_labels} labels.")


@contextmanager
def _opened(file: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """Open an array of the file behind its header."""
    try:
        member = file.open(name)
    except KeyError:
        raise DataInvalid(f"{file.filename} has no {name.removesuffix('.npy')}.") from None
    # An encrypted member.
    except RuntimeError as error:
        raise DataInvalid(f"{file.filename} can't be read: {error}.") from None
    with member as source:
        try:
            version = np.lib.format.read_magic(source)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, is_fortran, dtype = read(source)
        # NumPy reads the header as Python: its tokens may be none, or nested without end.
        except (ValueError, KeyError, EOFError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
            raise DataInvalid(f"{name} of {file.filename} is not a NumPy array, or damaged.") from None
        if dtype.hasobject or (is_fortran and len([side for side in shape if side != 1]) > 1):
            raise DataInvalid(f"{name} holds Python objects, or columns before rows. Save it as a plain array.")
        yield source, shape, dtype


def _read_exactly(source: IO[bytes], size_bytes: int, split: str) -> bytes:
    content = source.read(size_bytes)
    if len(content) < size_bytes:
        raise DataInvalid(f"The arrays of {split} end before their shape says so: the file is damaged.")
    return content
