"""Trainings of a second: bright, middling and dark squares of noise, and a small network on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medvision.config import Config, PathsConfig, PerformanceConfig, Recipe, TransformConfig
from medvision.models.catalog import Architecture
from medvision.models.network import Network, build_network
from medvision.training.fit import FitResult, LabelledImages, fit


class MemoryRecorder:
    """Keeps in lists what a training records."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, dict[str, float]]] = []

    def params(self, values: dict[str, Any]) -> None: ...

    def tags(self, values: dict[str, Any]) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None: ...

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.epochs.append((step, values))

    def figures(self, name: str) -> list[float]:
        """Return one figure of all epochs."""
        return [values[name] for _, values in self.epochs]


class WithoutNorm(nn.Module):
    """A backbone without batch norm and dropout: what it learns depends on the sum of gradients alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(16), nn.Tanh())
        self.layers(torch.zeros(1, 3, 16, 16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    # Networks of this size are slower on two threads.
    torch.set_num_threads(1)


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def make_data() -> Callable[..., LabelledImages]:
    """Make images whose brightness is a hint of their class; ``counts`` are the images of each class."""

    def make(counts: tuple[int, ...] = (16, 16, 16), *, n_val: int = 12, size: int = 16, channels: int = 3):
        random = np.random.default_rng(0)
        labels = np.repeat(np.arange(len(counts)), counts)
        labels = np.concatenate([labels, random.integers(len(counts), size=n_val)])
        noise = random.integers(0, 156, size=(len(labels), size, size, channels))
        images = (noise + 40 * labels[:, None, None, None]).astype(np.uint8)
        rows = np.arange(len(labels))
        return LabelledImages(images, labels, rows[:-n_val], rows[-n_val:], len(counts), "fingerprint")

    return make


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """Return settings of a short training; ``performance`` and ``transform`` are sections of their own."""

    def make(performance: dict[str, Any] | None = None, transform: dict[str, Any] | None = None, **training: Any):
        recipe = {"model": "simple_cnn", "strategy": "full", "optimizer": "adamw", "lr": 1e-3, "epochs": 2}
        recipe |= {"batch_size": 16, "warmup_epochs": 0.0, **training}
        return Config(
            training=Recipe(**recipe),
            performance=PerformanceConfig(**{"accelerator": "cpu", **(performance or {})}),
            transform=TransformConfig(**(transform or {})),
            paths=PathsConfig(state=tmp_path / "state"),
        )

    return make


@pytest.fixture
def build() -> Callable[..., Network]:
    """Build a network, the same at each call."""

    def make(*, n_classes: int = 3, channels: int = 3, size: int = 16, head: str = "linear") -> Network:
        torch.manual_seed(42)
        architecture = Architecture("simple_cnn", "own", head, n_classes, channels, size)
        return build_network(architecture, mean=(0.4,) * channels, std=(0.2,) * channels, pretrained=False)

    return make


@pytest.fixture
def build_without_norm(build: Callable[..., Network]) -> Callable[[], Network]:
    """Build a network in which neither batch norm nor dropout tells batches apart."""

    def make() -> Network:
        network = build()
        network.backbone, network.head = WithoutNorm(), nn.Linear(16, 3)
        return network

    return make


@pytest.fixture
def train(
    build: Callable[..., Network],
    make_data: Callable[..., LabelledImages],
    configure: Callable[..., Config],
    recorder: MemoryRecorder,
    tmp_path: Path,
) -> Callable[..., FitResult]:
    """Train on the default data, into ``tmp_path/checkpoints``; settings of training are passed on."""

    def run(network: Network | None = None, data: LabelledImages | None = None, config: Config | None = None, **recipe):
        resume, folder = recipe.pop("resume", False), recipe.pop("folder", tmp_path / "checkpoints")
        return fit(
            network or build(),
            data or make_data(),
            config or configure(**recipe),
            recorder=recorder,
            folder=folder,
            resume=resume,
        )

    return run
