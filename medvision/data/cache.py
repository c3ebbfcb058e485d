"""Images that are decoded once: a memory map of uint8 squares, one row for each row of the manifest."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medvision.data.decode import ImageSource, decode_file, fit_to_square
from medvision.data.manifest import Manifest
from medvision.data.parallel import map_files
from medvision.errors import DiskFull
from medvision.files import fingerprint, is_disk_full, locked

# Raised whenever decode_image or fit_to_square would give other pixels.
_VERSION = 1


@dataclass(frozen=True)
class ImageRows:
    """Some rows of a cache, in their own order; a slice is read when it is asked for."""

    images: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.images[self.rows[part]]


def open_cache(
    manifest: Manifest, *, image_size: int, channels: int, folder: Path, workers: int | None = None
) -> np.ndarray:
    """Return all images as a read-only memory map, made at the first call.

    It is filled under a temporary name and renamed when it is whole: a kill half-way leaves no half cache, and a
    second process waits for the first. A dataset of gray images keeps one channel whatever ``channels`` is.

    Returns
    -------
    uint8 (n, image_size, image_size, 1 or 3).
    """
    stored = 1 if manifest.is_gray else channels
    key = fingerprint([_VERSION, manifest.fingerprint, image_size, stored])[:24]
    path = folder / f"images-{key}.npy"
    with locked(folder / f"images-{key}.lock"):
        if not path.is_file():
            _fill(path, manifest, image_size, stored, workers)
    return np.load(path, mmap_mode="r")


def _fill(path: Path, manifest: Manifest, image_size: int, channels: int, workers: int | None) -> None:
    temporary = path.with_suffix(".tmp")
    target = _reserve(temporary, (len(manifest.rows), image_size, image_size, channels))
    squares = map_files(
        partial(_square, image_size=image_size, channels=channels),
        manifest.sources(),
        workers=workers,
        description="Caching images",
    )
    try:
        for row, square in enumerate(squares):
            target[row] = square
        target.flush()
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink()
        raise


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap:
    # Writing into a hole of a memory map on a full disk kills the process (SIGBUS): take the space first, which
    # numpy's open_memmap, that begins with an empty file, would give back.
    size_bytes = math.prod(shape)
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            os.posix_fallocate(file.fileno(), 0, file.tell() + size_bytes)
    except OSError as error:
        path.unlink(missing_ok=True)
        if is_disk_full(error):
            raise DiskFull(
                f"The cache of decoded images needs {size_bytes / 1e9:.1f} GB in {path.parent}, and the disk is full. "
                "Free some space, or delete old caches there."
            ) from None
        raise
    return np.load(path, mmap_mode="r+")


def _square(source: ImageSource, image_size: int, channels: int) -> np.ndarray:
    return fit_to_square(decode_file(source), image_size, channels)
