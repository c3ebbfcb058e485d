"""Mean and standard deviation of the training pixels, exact, in one pass, in parallel, in flat memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from medvision.data.decode import ImageSource, decode_file, to_gray
from medvision.data.manifest import Manifest
from medvision.data.parallel import map_files
from medvision.data.split import Split
from medvision.errors import DataInvalid, FingerprintMismatch
from medvision.files import write_text
from medvision.records import Normalization, load_record, save_record

STATS_FILE = "normalization_stats.json"
CONSTANTS_FILE = "normalization_constants.py"


def compute_normalization(
    manifest: Manifest, split: Split, *, channels: int, workers: int | None = None
) -> Normalization:
    """Compute mean and standard deviation of each channel over all pixels of the train rows, scaled to [0, 1].

    Pixels are counted in histograms of 256 integers, so that the result is exact whatever the order and the number
    of images. A gray image in a dataset of three channels counts in each of them.

    Raises DataInvalid if a channel is constant: nothing could be divided by its deviation.
    """
    sources = manifest.sources()
    train = split.indices("train")
    histograms = map_files(
        partial(_histogram, channels=channels), [sources[i] for i in train], workers=workers, description="Normalizing"
    )
    total = np.zeros((channels, 256), dtype=np.int64)
    for histogram in histograms:
        total += histogram
    mean, std = _moments(total)
    if (std == 0).any():
        raise DataInvalid("All training pixels have the same value. Look at the images: they are empty.")
    return Normalization(tuple(mean.tolist()), tuple(std.tolist()), len(train), int(total[0].sum()), split.fingerprint)


def load_normalization(folder: Path, split: Split) -> Normalization:
    """Return the saved statistics; FingerprintMismatch if they were computed from another split."""
    statistics = load_record(Normalization, folder / STATS_FILE)
    if statistics.split_fingerprint != split.fingerprint:
        raise FingerprintMismatch(
            f"{folder / STATS_FILE} was computed from split {statistics.split_fingerprint[:12]}, but the split is now "
            f"{split.fingerprint[:12]}: images, patients or settings have changed. "
            "Compute it again: medvision normalize (or compute_normalization.py --mode save)."
        )
    return statistics


def save_normalization(statistics: Normalization, folder: Path) -> None:
    """Write the statistics as JSON, and as Python constants to copy into other code."""
    save_record(statistics, folder / STATS_FILE)
    constants = (
        f'"""Mean and std of {statistics.n_images} training images, split {statistics.split_fingerprint[:12]}."""\n\n'
        f"MEAN = {[round(value, 6) for value in statistics.mean]}\n"
        f"STD = {[round(value, 6) for value in statistics.std]}\n"
    )
    write_text(folder / CONSTANTS_FILE, constants)


def _histogram(source: ImageSource, channels: int) -> np.ndarray:
    pixels = decode_file(source)
    if channels == 1:
        pixels = to_gray(pixels)
    # Pillow counts bytes as they are; numpy's bincount makes eight of each first, and takes two to three times as long.
    counts = np.array(Image.fromarray(pixels).histogram()).reshape(-1, 256)
    return np.broadcast_to(counts, (channels, 256))


def _moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(256)
    n = histogram.sum(axis=1)
    mean = (histogram * values).sum(axis=1) / n
    variance = (histogram * (values - mean[:, None]) ** 2).sum(axis=1) / n
    return mean / 255, np.sqrt(variance) / 255
