"""Rows of a cache, in their own order."""

import numpy as np
import pytest

from medvision.data.cache import ImageRows

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), dtype=np.uint8)
ROWS = np.array([5, 0, 8, 2, 2])


@pytest.fixture(params=["array", "memory map"])
def rows(request, tmp_path):
    if request.param == "array":
        return ImageRows(IMAGES, ROWS)
    np.save(tmp_path / "images.npy", IMAGES)
    return ImageRows(np.load(tmp_path / "images.npy", mmap_mode="r"), ROWS)


@pytest.mark.parametrize(
    "part", [slice(None), slice(1, 3), slice(3, 99), slice(-2, None), slice(None, None, 2), slice(2, 2)], ids=str
)
def test_a_slice_is_that_of_the_rows(rows, part):
    """Any slice gives the images of its rows, in the order of the rows, also twice."""
    assert np.array_equal(rows[part], IMAGES[ROWS][part])


def test_as_many_images_as_rows(rows):
    """The length is that of the rows, not of the cache."""
    assert len(rows) == 5


def test_what_is_read_is_a_copy(rows):
    """Changing what was read changes nothing in the cache."""
    read = rows[0:1]
    read[:] = 0
    assert np.array_equal(rows[0:1], IMAGES[[5]])
