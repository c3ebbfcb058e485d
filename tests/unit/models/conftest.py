import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medvision.models.catalog import Architecture
from medvision.models.network import Network, build_network


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(42)


@pytest.fixture
def build() -> Callable[..., Network]:
    """Build an untrained network of small images, with gammas and statistics as a trained one has them."""

    def build(timm_name="own", *, channels=3, n_classes=3, image_size=32, head="linear"):
        architecture = Architecture("model-under-test", timm_name, head, n_classes, channels, image_size)
        network = build_network(architecture, mean=(0.4,) * channels, std=(0.2,) * channels, pretrained=False)
        return awaken(network)

    return build


@pytest.fixture
def images() -> Callable[..., torch.Tensor]:
    return make_images


@pytest.fixture
def imagenet_weights() -> Path:
    """The real weights of timm's mobilenetv2_100."""
    data = os.environ.get("MEDVISION_TEST_DATA")
    if not data:
        pytest.skip("MEDVISION_TEST_DATA is not set: the real weights beside that folder are not here")
    path = Path(data).resolve().parent / "weights" / "mobilenetv2_100_imagenet.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def make_images(n: int = 4, channels: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8)


def awaken(network: Network) -> Network:
    # timm sets the last gamma of each residual block to 0: an untrained network would hide most faults.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    network.train()
    with torch.no_grad():
        network(make_images(8, network.architecture.channels, network.architecture.image_size))
    return network
