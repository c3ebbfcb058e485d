"""Images that are made worse: how, how much, and always the same way."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from medvision.data.cache import ImageRows
from medvision.data.corruptions import CORRUPTIONS, SEVERITIES, CorruptedImages, corrupt


def scan(channels=1, side=128, seed=0, grain=1.5):
    """Return a bright, textured disc on black, as a scan has it."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    texture = cv2.GaussianBlur(random.normal(0, 1, (side, side, 3)), (0, 0), grain) * 40 * grain
    image = (130 + texture) * (np.hypot(x, y) < 0.4 * side)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)[:, :, :channels].copy()


def change(image, kind, severity, seed=0):
    """Return how far a corruption takes the pixels, on average."""
    return np.abs(corrupt(image, kind, severity, seed=seed).astype(float) - image).mean()


def test_the_kinds_are_those_promised():
    """Noise, blur, brightness, contrast, gamma, rotation, JPEG quality and resolution, at five severities."""
    assert set(CORRUPTIONS) == {
        "noise", "blur", "brightness", "contrast", "gamma", "rotation", "jpeg", "resolution",
    }  # fmt: skip
    assert SEVERITIES == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shape_and_type_stay(kind, channels):
    """A corrupted image is uint8 of the same shape, of one channel and of three, large and small."""
    for side in (28, 128):
        for severity in SEVERITIES:
            found = corrupt(scan(channels, side), kind, severity, seed=0)
            assert (found.shape, found.dtype) == ((side, side, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_input_is_left_alone(kind, channels):
    """The image that is corrupted is not changed, and may be read-only as those of a cache are."""
    image = scan(channels)
    before = image.copy()
    image.flags.writeable = False
    corrupt(image, kind, 5, seed=0)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_severity_makes_each_image_worse(kind, channels, seed):
    """The mean change of every single image grows with severity."""
    # Finer texture has nothing in common with itself beyond some angle.
    image = scan(channels, seed=seed, grain=5)
    changes = [change(image, kind, severity, seed) for severity in SEVERITIES]
    assert changes[0] > 0
    assert all(less < more for less, more in pairwise(changes)), changes


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_seed_the_same_image(kind):
    """Nothing but image, kind, severity and seed decides."""
    first, again = (corrupt(scan(3), kind, 3, seed=7) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("kind", ["noise", "brightness", "gamma", "rotation"])
def test_another_seed_another_image(kind):
    """Noise differs from image to image, and brightness, gamma and rotation go to either side."""
    assert len({corrupt(scan(), kind, 3, seed=seed).tobytes() for seed in range(12)}) == (12 if kind == "noise" else 2)


def test_noise_is_gray_and_of_its_size():
    """The channels get the same noise, and its spread is that of the severity."""
    image = np.full((128, 128, 3), 128, np.uint8)
    found = corrupt(image, "noise", 3, seed=0).astype(int)
    assert np.array_equal(found[:, :, 0], found[:, :, 1])
    assert found.std() == pytest.approx(20, rel=0.05)
    assert found.mean() == pytest.approx(128, abs=1)


def test_brightness_and_gamma_go_both_ways():
    """Over many images as many get brighter as darker, about."""
    for kind in ("brightness", "gamma"):
        brighter = [corrupt(scan(), kind, 2, seed=seed).mean() > scan().mean() for seed in range(60)]
        assert 15 <= sum(brighter) <= 45


def test_contrast_keeps_the_mean():
    """Less contrast pulls all pixels towards their mean."""
    image = scan()
    found = corrupt(image, "contrast", 4, seed=0)
    assert found.mean() == pytest.approx(image.mean(), abs=0.5)
    assert found.std() == pytest.approx(0.4 * image.std(), rel=0.02)


def test_gamma_keeps_black_and_white():
    """Gamma moves what lies between."""
    image = np.zeros((8, 8, 1), np.uint8)
    image[4:] = 255
    assert np.array_equal(corrupt(image, "gamma", 5, seed=0), image)


def test_a_rotation_turns_about_the_centre():
    """The disc in the middle stays, and turning back gives about the image that was."""
    image = cv2.GaussianBlur(scan(), (0, 0), 3)[:, :, None]
    found = corrupt(image, "rotation", 3, seed=0)
    angles = [
        np.abs(
            cv2.warpAffine(found, cv2.getRotationMatrix2D((63.5, 63.5), angle, 1), (128, 128)).astype(float)
            - image[:, :, 0]
        ).mean()
        for angle in (10, -10)
    ]
    assert min(angles) < 1.5 < max(angles)


def test_jpeg_takes_red_for_red():
    """A colour image goes through JPEG as an RGB file does, which keeps brightness better than colour."""
    from io import BytesIO

    from PIL import Image

    image = scan(3)
    with BytesIO() as file:
        Image.fromarray(image).save(file, "JPEG", quality=25)
        expected = np.asarray(Image.open(file)).astype(float)
    assert np.abs(corrupt(image, "jpeg", 3, seed=0) - expected).mean() < 1


def test_a_flat_image_survives_what_only_moves_detail():
    """Blur, rotation, resolution and contrast have nothing to take from an image of one gray."""
    image = np.full((64, 64, 1), 77, np.uint8)
    for kind in ("blur", "rotation", "resolution", "contrast"):
        assert np.array_equal(corrupt(image, kind, 5, seed=0), image)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_images_are_corrupted_when_they_are_read(kind):
    """Each image by its own place: whatever slice it is read with."""
    images = np.stack([scan(3, 32, seed) for seed in range(7)])
    worse = CorruptedImages(ImageRows(images, np.array([6, 0, 3, 3, 1])), kind, 3)
    whole = worse[0:5]
    assert len(worse) == len(whole) == 5
    assert np.array_equal(np.concatenate([worse[0:2], worse[2:4], worse[4:9]]), whole)
    assert np.array_equal(worse[::2], whole[::2])
    assert np.array_equal(worse[-1:], whole[-1:])
    assert np.array_equal(whole[0], corrupt(images[6], kind, 3, seed=0))
