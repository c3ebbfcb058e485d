"""The window of a dataset's settings is what all of its images are seen through, and part of what the dataset is."""

import numpy as np
import pytest
from medical_files import write_dicom

from medvision.data.cache import open_cache
from medvision.data.decode import ImageSource, decode_image

CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}


@pytest.fixture
def scans(tmp_path):
    """Six CT images of two classes, from -200 to 400 HU."""
    for number in range(6):
        path = tmp_path / "scans" / ("bleeding", "normal")[number % 2] / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        hounsfield = np.random.default_rng(number).integers(-200, 400, (32, 32))
        path.write_bytes(write_dicom((hounsfield + 1024).astype(np.uint16), **CT))
    return tmp_path / "scans"


def test_images_are_seen_through_the_window(build, scans, tmp_path):
    """The manifest's sources and the cache that is made of them are those of the window."""
    manifest = build(scans, dataset={"window": "brain"})
    images = open_cache(manifest, image_size=32, channels=1, folder=tmp_path / "cache", workers=1)
    for row, source in enumerate(manifest.sources()):
        assert source.window == "brain"
        assert np.array_equal(images[row, :, :, 0], decode_image(ImageSource(source.file, window="brain")))


def test_another_window_is_another_dataset(build, scans):
    """With another window the saved manifest is not used, and the dataset has another fingerprint."""
    manifests = [build(scans, dataset={"window": window}) for window in ("", "brain", "lung", "40,80")]
    assert [manifest.window for manifest in manifests] == ["", "brain", "lung", "40,80"]
    assert len({manifest.listing for manifest in manifests}) == 4
    # brain is 40,80.
    assert len({manifest.fingerprint for manifest in manifests}) == 3


def test_saved_manifest_keeps_the_window(build, scans):
    """A manifest that was saved comes back with its window."""
    for _ in range(2):
        assert build(scans, dataset={"window": "lung"}).window == "lung"


def test_images_without_hounsfield_units_are_rejected(build, sample, scans, noise, write_image):
    """With a window, an image that has no Hounsfield units is not read, and is listed with the reason."""
    write_image(scans / "normal" / "photo.png", noise(0))
    manifest = build(scans, dataset={"window": "brain"})
    assert [image.path for image in manifest.rejected if "no Hounsfield units" in image.reason] == ["normal/photo.png"]
