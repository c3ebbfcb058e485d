"""Scores of a network, against the network itself."""

import numpy as np
import pytest
import torch
from torch import nn

from medvision.errors import DataInvalid
from medvision.evaluation.scoring import place, score


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


def test_scores_are_the_softmax_of_the_logits(network, images):
    """Scores are float32 probabilities of the network in evaluation mode, in the order of the images."""
    y_score = score(place(network, "cpu"), images, batch_size=4)
    network.eval()
    with torch.no_grad():
        expected = network(torch.tensor(images).permute(0, 3, 1, 2)).softmax(1).numpy()
    assert y_score.dtype == np.float32
    np.testing.assert_allclose(y_score, expected, rtol=1e-5)
    np.testing.assert_allclose(y_score.sum(axis=1), 1, rtol=1e-5)


def test_batch_size_changes_nothing(network, images):
    """The scores of an image do not depend on what it is batched with."""
    one, all_ = (score(place(network, "cpu"), images, batch_size=size) for size in (1, 64))
    np.testing.assert_allclose(one, all_, rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_read_only_memory_map(network, images, tmp_path):
    """A read-only memory map is scored, and without a warning."""
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        score(place(network, "cpu"), mapped, batch_size=4), score(place(network, "cpu"), images, batch_size=4)
    )


def test_no_images(network, images):
    """An empty split is an error that says so."""
    with pytest.raises(DataInvalid, match="at least one image"):
        score(place(network, "cpu"), images[:0], batch_size=4)
