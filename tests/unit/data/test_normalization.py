"""Mean and deviation are those of all training pixels, exactly, and belong to one split."""

import runpy

import numpy as np
import pytest
from PIL import Image

from medvision.config import DatasetConfig
from medvision.data.normalization import (
    CONSTANTS_FILE,
    compute_normalization,
    load_normalization,
    save_normalization,
)
from medvision.data.split import make_split
from medvision.errors import DataInvalid, FingerprintMismatch

SHAPES = {"gray": [(20, 30)], "colour": [(20, 30, 3)], "mixed": [(20, 30), (9, 50, 3), (40, 7)]}


@pytest.fixture(params=SHAPES)
def dataset(request, noise, write_image, build, tmp_path):
    """Return manifest and split of 40 images of many sizes, and of one kind or mixed."""
    shapes = SHAPES[request.param]
    for i in range(40):
        shape = (shapes[i % len(shapes)][0] + i, *shapes[i % len(shapes)][1:])
        pixels = (noise(i, shape) * (i / 40)).astype(np.uint8)
        write_image(tmp_path / "d" / "ab"[i % 2] / f"{i}.png", pixels)
    manifest = build(tmp_path / "d")
    return manifest, make_split(manifest, DatasetConfig())


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_numpy(dataset, channels):
    """The figures are those of float64 numpy over all pixels of the train rows, to 1e-6."""
    manifest, split = dataset
    mode = "L" if channels == 1 else "RGB"
    pixels = [
        np.asarray(Image.open(manifest.sources()[row].file).convert(mode), np.float64).reshape(-1, channels) / 255
        for row in split.indices("train")
    ]
    together = np.concatenate(pixels)
    found = compute_normalization(manifest, split, channels=channels, workers=1)
    assert found.mean == pytest.approx(together.mean(axis=0), abs=1e-6)
    assert found.std == pytest.approx(together.std(axis=0), abs=1e-6)
    assert found.n_images == len(pixels) == len(split.indices("train"))
    assert found.n_pixels == len(together)
    assert found.split_fingerprint == split.fingerprint


def test_processes_give_the_same(build, write_dataset, tmp_path):
    """The figures do not depend, in any bit, on how many processes compute them."""
    manifest = build(write_dataset(tmp_path / "d", [f"{name}/{i}.png" for name in "ab" for i in range(60)]))
    split = make_split(manifest, DatasetConfig())
    alone, together = (compute_normalization(manifest, split, channels=3, workers=n) for n in (1, 2))
    assert alone == together


def test_constant_images_are_refused(build, write_image, tmp_path):
    """Images of a single value give an error, not a division by zero later."""
    for i in range(6):
        write_image(tmp_path / "d" / "ab"[i % 2] / f"{i}.png", np.full((4, 4 + i), 7, np.uint8))
    manifest = build(tmp_path / "d")
    with pytest.raises(DataInvalid, match="same value"):
        compute_normalization(manifest, make_split(manifest, DatasetConfig()), channels=1, workers=1)


def test_saved_files(build, sample, tmp_path):
    """Saved statistics are found again, as a record and as Python constants."""
    manifest = build(sample)
    split = make_split(manifest, DatasetConfig())
    made = compute_normalization(manifest, split, channels=3, workers=1)
    save_normalization(made, tmp_path)
    assert load_normalization(tmp_path, split) == made
    constants = runpy.run_path(str(tmp_path / CONSTANTS_FILE))
    assert constants["MEAN"] == pytest.approx(made.mean, abs=1e-6)
    assert constants["STD"] == pytest.approx(made.std, abs=1e-6)


def test_statistics_of_another_split_are_refused(build, sample, tmp_path):
    """Statistics of a split that has changed since are refused with exit 5 and the command that mends it."""
    manifest = build(sample)
    first, other = (make_split(manifest, DatasetConfig(seed=seed)) for seed in (1, 2))
    save_normalization(compute_normalization(manifest, first, channels=3, workers=1), tmp_path)
    with pytest.raises(FingerprintMismatch, match="medvision normalize") as refusal:
        load_normalization(tmp_path, other)
    assert refusal.value.exit_code == 5


def test_missing_statistics(build, sample, tmp_path):
    """Where nothing was saved, the error says to run the step first."""
    with pytest.raises(DataInvalid, match="is missing"):
        load_normalization(tmp_path, make_split(build(sample), DatasetConfig()))
