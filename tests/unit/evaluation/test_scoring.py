"""Logits and scores, against the networks themselves."""

import numpy as np
import pytest
import torch
from torch import nn

from medvision.errors import DataInvalid
from medvision.evaluation.scoring import compute_logits, place, score_package
from medvision.models.ensemble import combine
from medvision.records import Combination, Member, PackageInfo, Preprocessing


class Tiny(nn.Module):
    """Takes uint8 images and returns logits, as medvision's networks do; dropout and batch norm tell the mode."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(144, 3)
        )

    def forward(self, images):
        assert images.dtype == torch.uint8
        return self.layers(images.float() / 255)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


def test_logits_are_those_of_the_network(network, images):
    """Logits are float32, of the network in evaluation mode, in the order of the images."""
    logits = compute_logits(place(network, "cpu"), images, batch_size=4)
    with torch.no_grad():
        expected = network.eval()(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def package(*temperatures, **combination):
    """A package of as many members as there are temperatures."""
    members = tuple(Member("tiny", {}, Preprocessing(8, 3, (0,), (1,)), t, "run", 1, 0.5) for t in temperatures)
    lineage = dict.fromkeys(("manifest_fingerprint", "split_fingerprint", "run_key"), "x")
    return PackageInfo(
        name="p", dataset="d", classes=("a", "b", "c"), members=members, combination=Combination(**combination),
        operating_points=(), conformal=None, **lineage,
    )  # fmt: skip


def test_scores_of_one_network_are_the_softmax_over_its_temperature(network, images):
    """A package of one network gives softmax(logits / temperature), rows that sum to 1."""
    placed = place(network, "cpu")
    scores = score_package(package(1.0, temperature=2.0), [placed], lambda _: images, batch_size=4)
    logits = torch.tensor(compute_logits(placed, images, batch_size=4))
    np.testing.assert_allclose(scores.y_score, (logits / 2).softmax(1).numpy(), rtol=1e-5)
    np.testing.assert_allclose(scores.y_score.sum(axis=1), 1, rtol=1e-6)


def test_each_member_gets_the_images_that_it_takes(network, images):
    """The members of an ensemble are asked with their own preprocessing, and their scores are combined."""
    info = package(1.0, 0.5, weights=(3.0, 1.0))
    asked = []
    placed = place(network, "cpu")
    scores = score_package(info, [placed, placed], lambda form: asked.append(form) or images, batch_size=4)
    assert asked == [member.preprocessing for member in info.members]
    assert scores.members.shape == (2, len(images), 3)
    np.testing.assert_allclose(scores.y_score, combine(scores.members, info.combination), rtol=1e-6)


def test_batch_size_changes_nothing(network, images):
    """The logits of an image do not depend on what it is batched with."""
    one, all_ = (compute_logits(place(network, "cpu"), images, batch_size=size) for size in (1, 64))
    np.testing.assert_allclose(one, all_, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_read_only_memory_map(network, images, tmp_path):
    """A read-only memory map is scored, and without a warning."""
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        compute_logits(place(network, "cpu"), mapped, batch_size=4),
        compute_logits(place(network, "cpu"), images, batch_size=4),
    )


def test_no_images(network, images):
    """An empty split is an error that says so."""
    with pytest.raises(DataInvalid, match="at least one image"):
        compute_logits(place(network, "cpu"), images[:0], batch_size=4)
