"""An augmented image depends on its seed alone, and stays an image."""

import subprocess
import sys

import numpy as np
import pytest

from medvision.config import TransformConfig
from medvision.data.transforms import Augmentation

NOTHING = {
    "horizontal_flip": 0, "vertical_flip": 0, "rotation": 0, "shift": 0, "scale": 0, "brightness": 0, "contrast": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def augment():
    return Augmentation(TransformConfig())


@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 32, 3)])
def test_depends_on_the_seed_alone(augment, noise, shape):
    """The same seed gives the same bytes, whatever was augmented before, also by another object."""
    image = noise(0, shape)
    first = augment(image, seed=(42, 3, 7))
    for other in range(20):
        augment(noise(other, shape), seed=(42, 3, other))
    assert np.array_equal(augment(image, seed=(42, 3, 7)), first)
    assert np.array_equal(Augmentation(TransformConfig())(image, seed=(42, 3, 7)), first)
    assert first.shape == shape and first.dtype == np.uint8


def test_another_process_gives_the_same(augment, noise):
    """The same seed gives the same bytes in a process of its own."""
    script = (
        "import numpy as np; from medvision.config import TransformConfig; "
        "from medvision.data.transforms import Augmentation; "
        "image = np.random.default_rng(0).integers(0, 256, (16, 16, 1), dtype=np.uint8); "
        "print(Augmentation(TransformConfig())(image, seed=(1, 2, 3)).tobytes().hex())"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.split()[-1] == augment(noise(0, (16, 16, 1)), seed=(1, 2, 3)).tobytes().hex()


def test_seeds_differ(augment, noise):
    """Other epochs, rows and seeds see other pictures."""
    image = noise(0, (32, 32, 3))
    seeds = [(seed, epoch, row) for seed in range(3) for epoch in range(3) for row in range(3)]
    assert len({augment(image, seed=seed).tobytes() for seed in seeds}) == len(seeds)


def test_all_off_changes_nothing(noise):
    """With every setting at zero the image stays as it is."""
    image = noise(0, (32, 32, 3))
    augment = Augmentation(TransformConfig(**NOTHING))
    assert all(np.array_equal(augment(image, seed=(seed,)), image) for seed in range(10))


@pytest.mark.parametrize(("setting", "turned"), [("horizontal_flip", np.fliplr), ("vertical_flip", np.flipud)])
def test_flips(noise, setting, turned):
    """A flip with probability 1 always turns the image over."""
    image = noise(0, (32, 32, 1))
    augment = Augmentation(TransformConfig(**{**NOTHING, setting: 1}))
    assert all(np.array_equal(augment(image, seed=(seed,)), turned(image)) for seed in range(5))


def test_image_is_not_changed_in_place(augment, noise):
    """The image that was given keeps its pixels: it may be a read-only memory map."""
    image = noise(0, (32, 32, 3))
    image.setflags(write=False)
    augment(image, seed=(1,))
    assert np.array_equal(image, noise(0, (32, 32, 3)))
