"""Phantoms and altered copies of them, made once."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from medvision.config import Config
from medvision.data.manifest import load_or_build_manifest
from medvision.data.phantom import make_phantom


def settings(root, state, **sections):
    """Return a Config for a dataset whose images are compared by the descriptor, since no weights are at hand."""
    sections["dataset"] = {"name": "sample", "path": root, **sections.get("dataset", {})}
    sections["training"] = {"pretrained": False, **sections.get("training", {})}
    return Config.model_validate({**sections, "performance": {"workers": 1}, "paths": {"state": state}})


def thumbnail(image):
    """Return a PIL image as the audit sees it."""
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR))


def _cropped(image, share):
    w, h = image.size
    return image.crop((int(share * 0.7 * w), int(share * 0.3 * h), int(w - share * 0.3 * w), int(h - share * 0.7 * h)))


def _compressed(image, folder):
    path = folder / "compressed.jpg"
    image.save(path, quality=40)
    return Image.open(path).convert("L")


ALTERATIONS = {
    "compressed": _compressed,
    "half the size": lambda image, _: image.resize((image.width // 2, image.height // 2)),
    "brightened": lambda image, _: ImageEnhance.Brightness(image).enhance(1.3),
    "less contrast": lambda image, _: ImageEnhance.Contrast(image).enhance(0.7),
    "mirrored": lambda image, _: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90 degrees": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "cropped by a tenth": lambda image, _: _cropped(image, 0.1),
    "mirrored and cropped": lambda image, _: _cropped(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.1),
    "turned by 8 degrees": lambda image, _: image.rotate(8, Image.Resampling.BILINEAR),
}


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """90 patients of three classes, two slices each."""
    folder = tmp_path_factory.mktemp("audit") / "phantom"
    make_phantom(folder, patients_per_class=30, slices_per_patient=2, image_size=96)
    return folder


@pytest.fixture(scope="session")
def images(phantom):
    return [Image.open(path).convert("L") for path in sorted(phantom.glob("*/*.png"))]


@pytest.fixture(scope="session")
def thumbnails(images):
    return np.stack([thumbnail(image) for image in images])


@pytest.fixture(scope="session")
def real_manifest(tmp_path_factory):
    """Make the manifest of a real dataset, with its settings."""

    def make(name, **dataset):
        base = os.environ.get("MEDVISION_TEST_DATA")
        if not base or not Path(base, name).is_dir():
            pytest.skip("MEDVISION_TEST_DATA is not set, or lacks it: no real data to test on")
        config = settings(Path(base, name).resolve(), tmp_path_factory.mktemp(name), dataset=dataset)
        return load_or_build_manifest(config), config

    return make


@pytest.fixture(name="settings", scope="session")
def settings_fixture():
    return settings


@pytest.fixture(name="thumbnail")
def thumbnail_fixture():
    return thumbnail


@pytest.fixture(params=list(ALTERATIONS))
def alter(request, tmp_path):
    """Alter an image in one of the ways in which copies come about."""
    return lambda image: ALTERATIONS[request.param](image, tmp_path)


def pair_table(*pairs):
    """Return a table of pairs of rows."""
    i, j = zip(*pairs, strict=True) if pairs else ((), ())
    return pd.DataFrame({"i": np.array(i, int), "j": np.array(j, int), "likeness": 0.99, "kind": "copy"})


@pytest.fixture(name="pair_table")
def pair_table_fixture():
    return pair_table
