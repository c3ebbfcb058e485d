"""Datasets made on the spot, their settings, and manifests that need no images."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medvision.config import Config
from medvision.data.manifest import Manifest, Rejected, load_or_build_manifest

# Makers of DICOM and NIfTI files.
sys.path.insert(0, str(Path(__file__).parents[2] / "security"))

CLASSES = ("glioma", "meningioma", "pituitary")


def noise(seed, shape=(24, 32)):
    """Return an image that no other seed gives."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(path, pixels, **options):
    """Write pixels in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_dataset(root, names):
    """Write a different image under each name; return the folder."""
    for seed, name in enumerate(names):
        write_image(root / name, noise(seed))
    return root


def settings(root, state, **sections):
    """Return a Config for the dataset in ``root`` with its state in ``state``; sections are laid over it."""
    sections["dataset"] = {"name": "sample", "path": root, **sections.get("dataset", {})}
    sections["performance"] = {"workers": 1, **sections.get("performance", {})}
    return Config.model_validate({**sections, "paths": {"state": state}})


def _union(*columns):
    """Join rows that share a value in any column, by union-find; None joins nothing."""
    parent = list(range(len(columns[0])))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for column in columns:
        first = {}
        for i, value in enumerate(column):
            if value:
                parent[root(i)] = root(first.setdefault(value, i))
    return np.array([root(i) for i in range(len(parent))])


def manifest_of(labels, *, patients=None, pixels=None, given=None, channels=1, classes=None, rejected=()):
    """Return a manifest with these rows and no image behind them."""
    n = len(labels)
    patients = [""] * n if patients is None else list(patients)
    pixels = [f"pixels{i}" for i in range(n)] if pixels is None else list(pixels)
    rows = pd.DataFrame(
        {
            "image_id": [f"image{i}" for i in range(n)],
            "path": [f"{i}.png" for i in range(n)],
            "frame": 0,
            "label": np.asarray(labels),
            "given_split": [""] * n if given is None else list(given),
            "patient_key": patients,
            "pixel_hash": pixels,
            "width": 8,
            "height": 8,
            "channels": channels,
            "group": _union(patients, pixels),
        }
    )
    n_classes = max(labels) + 1
    return Manifest(
        root=Path("/nowhere"),
        classes=classes or tuple(f"class{c}" for c in range(n_classes)),
        rows=rows,
        rejected=tuple(Rejected(f"rejected{i}", path, reason) for i, (path, reason) in enumerate(rejected)),
        unmatched=sum(not p for p in patients) if any(patients) else 0,
        left_out=(),
        listing="listing",
        fingerprint="f" * 64,
    )


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def sample(tmp_path):
    """Nine images of three classes."""
    return write_dataset(tmp_path / "sample", [f"{name}/{i}.png" for name in CLASSES for i in range(3)])


@pytest.fixture
def build(state):
    """Make a manifest through the whole chain."""
    return lambda root, **sections: load_or_build_manifest(settings(root, state, **sections))


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of a real dataset."""

    def folder(name):
        base = os.environ.get("MEDVISION_TEST_DATA")
        if not base:
            pytest.skip("MEDVISION_TEST_DATA is not set: no real data to test on")
        path = Path(base, name).resolve()
        if not path.is_dir():
            pytest.skip(f"{path} is not there")
        return path

    return folder


@pytest.fixture(name="noise")
def noise_fixture():
    return noise


@pytest.fixture(name="write_image")
def write_image_fixture():
    return write_image


@pytest.fixture(name="write_dataset")
def write_dataset_fixture():
    return write_dataset


@pytest.fixture(name="settings")
def settings_fixture():
    return settings


@pytest.fixture(name="manifest_of")
def manifest_of_fixture():
    return manifest_of
