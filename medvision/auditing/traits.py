"""What each image is like apart from what it shows: its file, its size, its frame, and a thumbnail of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvision.data.decode import ImageSource, decode_file, fit_to_square, sniff_format, to_gray
from medvision.data.manifest import Manifest
from medvision.data.parallel import map_files
from medvision.files import atomic_write

TRAITS_FILE = "traits.npz"
THUMBNAIL = 64

# Raised whenever the same image would have other traits.
_VERSION = 1
# JPEG moves the samples of a black or white frame by a few levels.
_NEAR = 8
# The noise of an empty frame stays below; the flattest X-ray that we have seen has a deviation of 14 levels.
_FLAT = 3.0


@dataclass(frozen=True)
class Traits:
    """One entry an image, in the order of the manifest's rows.

    ``image_format``: by the file's first bytes, "" if unknown. ``size_bytes``: of the file. ``channels``: as decoded,
    3 also where the colours are equal. ``borders`` (n, 4): how much of the side at top, bottom, left and right is a
    uniform frame, as a fraction; below 0 where it is white. ``deviation``: of the gray levels. ``thumbnails``: uint8
    (n, 64, 64), gray, whatever the image's shape.
    """

    image_format: np.ndarray
    size_bytes: np.ndarray
    width: np.ndarray
    height: np.ndarray
    channels: np.ndarray
    borders: np.ndarray
    deviation: np.ndarray
    thumbnails: np.ndarray

    @property
    def is_flat(self) -> np.ndarray:
        """Tell of each image whether it is of one gray level, or nearly so: nothing can be seen on it."""
        return self.deviation < _FLAT


def load_or_measure_traits(manifest: Manifest, folder: Path, *, workers: int | None = None) -> Traits:
    """Return the traits of a manifest's images: those saved in ``folder`` if they are of these very files, else new.

    Raises DecodeRejected if an image has changed since the manifest was made.
    """
    # The fingerprint is of pixels alone: the listing tells of files that hold them in another format or size.
    made_of = f"{_VERSION} {manifest.fingerprint} {manifest.listing}"
    saved = _load(folder / TRAITS_FILE, made_of)
    if saved is not None:
        return saved
    traits = _measure_all(manifest.sources(), workers)
    fields = dataclasses.asdict(traits)
    atomic_write(folder / TRAITS_FILE, lambda file: np.savez(file, made_of=np.array(made_of), **fields))
    return traits


def _measure_all(sources: list[ImageSource], workers: int | None) -> Traits:
    n = len(sources)
    # Filled one by one: as a list of arrays, thumbnails of a million images would be held twice.
    thumbnails = np.empty((n, THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    rest = []
    for row, (described, thumbnail) in enumerate(
        map_files(_measure, sources, workers=workers, description="Looking at images")
    ):
        thumbnails[row] = thumbnail
        rest.append(described)
    image_format, size_bytes, width, height, channels, borders, deviation = zip(*rest, strict=True)
    return Traits(
        image_format=np.array(image_format, dtype="U8"),
        size_bytes=np.array(size_bytes, dtype=np.int64),
        width=np.array(width, dtype=np.int32),
        height=np.array(height, dtype=np.int32),
        channels=np.array(channels, dtype=np.int8),
        borders=np.array(borders, dtype=np.float32),
        deviation=np.array(deviation, dtype=np.float32),
        thumbnails=thumbnails,
    )


def _measure(source: ImageSource) -> tuple[tuple[Any, ...], np.ndarray]:
    pixels = decode_file(source)
    gray = to_gray(pixels)
    height, width = gray.shape
    size_bytes = len(source.file) if isinstance(source.file, bytes) else source.file.stat().st_size
    channels = 1 if pixels.ndim == 2 else 3
    described = (sniff_format(source.file), size_bytes, width, height, channels, _borders(gray), float(gray.std()))
    return described, fit_to_square(gray, THUMBNAIL, 1)[:, :, 0]


def _borders(gray: np.ndarray) -> tuple[float, float, float, float]:
    rows = _uniform(gray.min(axis=1), gray.max(axis=1))
    columns = _uniform(gray.min(axis=0), gray.max(axis=0))
    return (_width(rows), _width(rows[::-1]), _width(columns), _width(columns[::-1]))


def _uniform(darkest: np.ndarray, brightest: np.ndarray) -> np.ndarray:
    """Return 1 for each line that is black throughout, -1 for a white one, else 0."""
    return (brightest <= _NEAR).astype(int) - (darkest >= 255 - _NEAR)


def _width(lines: np.ndarray) -> float:
    """Return the fraction of lines, from the first on, that are of the first one's kind; below 0 for white."""
    others = np.flatnonzero(lines != lines[0])
    return float(lines[0] * (others[0] if len(others) else len(lines)) / len(lines))


def _load(path: Path, made_of: str) -> Traits | None:
    # Only a shortcut: whatever is wrong with the file, the images are looked at again.
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["made_of"]) != made_of:
                return None
            return Traits(**{field.name: saved[field.name] for field in dataclasses.fields(Traits)})
    # numpy and zipfile have errors of their own for damaged files, beside OSError, ValueError, KeyError ...
    except Exception:
        return None
