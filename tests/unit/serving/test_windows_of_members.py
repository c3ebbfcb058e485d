"""A service sees CT values through the window that the model was trained with, whoever asks."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "security"))

from medical_files import write_dicom

from medvision.data.decode import ImageSource, decode_image
from medvision.errors import DecodeRejected
from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.models.package import describe, load_package, save_package
from medvision.records import Combination
from medvision.serving.predictor import Predictor

SCAN = write_dicom(
    np.random.default_rng(0).integers(800, 1500, (32, 32)).astype(np.uint16),
    Modality="CT", RescaleSlope=1, RescaleIntercept=-1024,
)  # fmt: skip


def save(folder, *windows):
    """Save a package of untrained networks, one for each window."""
    torch.manual_seed(0)
    architecture = Architecture("simple_cnn", "own", "linear", 2, 1, 32)
    networks = [
        build_network(architecture, mean=(0.4,), std=(0.2,), pretrained=False, window=window).eval()
        for window in windows
    ]
    infos = [
        describe(
            network, name="m", dataset="d", classes=("bleeding", "normal"), manifest_fingerprint="a",
            split_fingerprint="b", run_key="c", best_epoch=1, best_val_accuracy=0.5,
        )
        for network in networks
    ]  # fmt: skip
    members = tuple(member for info in infos for member in info.members)
    combination = Combination(weights=(1 / len(members),) * len(members))
    save_package(folder, replace(infos[0], members=members, combination=combination), networks)
    return folder


def test_package_keeps_the_window(tmp_path):
    """A package says the window that its network was trained with, and its network knows it."""
    info, (network,) = load_package(save(tmp_path / "package", "brain"))
    assert info.members[0].preprocessing.window == network.preprocessing.window == "brain"


@pytest.mark.parametrize("asked", [SCAN, ImageSource(SCAN), ImageSource(SCAN, window="lung")])
def test_each_member_has_its_own_window(tmp_path, asked):
    """Members with different windows each get the image through theirs, also where another is asked for."""
    forms = Predictor(save(tmp_path / "package", "brain", "bone")).read(asked)
    assert len(forms) == 2
    for (window, size, channels), image in forms.items():
        assert (size, channels) == (32, 1)
        assert np.array_equal(image[:, :, 0], decode_image(ImageSource(SCAN, window=window)))


def test_answer_depends_on_the_window(tmp_path):
    """A package whose two members differ in nothing but the window answers with both."""
    answers = [
        Predictor(save(tmp_path / str(number), *windows)).predict([SCAN])[0].probabilities["normal"]
        for number, windows in enumerate([("brain",), ("brain", "bone")])
    ]
    assert answers[0] != answers[1]


def test_no_hounsfield_units_no_answer(tmp_path):
    """A model of CT values does not answer for an image that has none."""
    mr = write_dicom(np.zeros((8, 8), np.uint16), Modality="MR")
    with pytest.raises(DecodeRejected, match="no Hounsfield units"):
        Predictor(save(tmp_path / "package", "brain")).predict([mr])
