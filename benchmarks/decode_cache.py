"""The data part of second and later epochs: medvision's decode-once cache against torchvision's ImageFolder.

Both deliver shuffled float batches in [0, 1] of the same images, resized to the same square, with the same number of
loader processes. Augmentation, which only medvision's side has, is stated beside it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _table import Measurement, data_parser, every_nth, link_some, needed, report
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from medvision.config import Config, DatasetConfig, PathsConfig, PerformanceConfig, TransformConfig
from medvision.data.cache import open_cache
from medvision.data.loading import EpochSampler, TrainImages, build_loader
from medvision.data.manifest import load_or_build_manifest
from medvision.data.transforms import Augmentation

BATCH = 32
ROUNDS = 3


def main() -> int:
    """Measure and print."""
    parser = data_parser(__doc__, "brain-mri")
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=0, help="loader processes on both sides")
    arguments = parser.parse_args()
    root = needed(arguments.dataset_path, "--dataset-path")
    training = root / "Training" if (root / "Training").is_dir() else root
    with tempfile.TemporaryDirectory() as folder:
        images = every_nth(sorted(path for path in training.rglob("*") if path.is_file()), arguments.images)
        subset = link_some(Path(folder) / "images", images, training)
        return _compare(subset, Path(folder) / "state", arguments)


def _compare(subset: Path, state: Path, arguments: Any) -> int:
    performance = PerformanceConfig(accelerator="cpu", loader_workers=arguments.workers)
    config = Config(dataset=DatasetConfig(path=subset), paths=PathsConfig(state=state), performance=performance)
    manifest = load_or_build_manifest(config)
    start = time.perf_counter()
    images = open_cache(manifest, image_size=arguments.image_size, channels=3, folder=state)
    filling_s = time.perf_counter() - start
    loaders = {
        "torchvision": _torchvision(subset, arguments),
        "cache": _cached(images, manifest.rows.label.to_numpy(), _as_it_is, performance),
        "augmented": _cached(images, manifest.rows.label.to_numpy(), Augmentation(TransformConfig()), performance),
    }
    seconds = _race(loaders)
    n = len(manifest.rows)
    per_image = {name: f"{1000 * value / n:.2f} ms an image" for name, value in seconds.items()}
    return report(
        f"Data part of an epoch: {n} images of {arguments.dataset_path.name} to {arguments.image_size} px",
        [
            Measurement(
                "torchvision ImageFolder + Resize + ToTensor / cache",
                seconds["torchvision"] / seconds["cache"],
                5,
                detail=f"{per_image['torchvision']} / {per_image['cache']}",
            ),
            Measurement(
                "the same / cache with augmentation",
                seconds["torchvision"] / seconds["augmented"],
                detail=f"{per_image['augmented']}; torchvision's side augments nothing",
            ),
        ],
        f"Best of {ROUNDS} epochs each, in turns; {arguments.workers} loader processes on both sides; filling the "
        f"cache took {filling_s:.1f} s, once.",
    )


def _as_it_is(image: np.ndarray, *, seed: tuple[int, ...]) -> np.ndarray:
    return image


def _torchvision(folder: Path, arguments: Any) -> DataLoader:
    size = (arguments.image_size, arguments.image_size)
    # Brain MRI files are gray and colour in turns; ImageFolder makes all of them RGB.
    transform = transforms.Compose([transforms.Resize(size), transforms.ToTensor()])
    return DataLoader(ImageFolder(str(folder), transform), BATCH, shuffle=True, num_workers=arguments.workers)


def _cached(images: np.ndarray, labels: np.ndarray, augment: Callable, performance: PerformanceConfig) -> DataLoader:
    dataset = TrainImages(images, np.arange(len(images)), labels, augment, seed=42)
    return build_loader(dataset, BATCH, performance, EpochSampler(len(images), seed=42))


def _race(loaders: dict[str, Iterable]) -> dict[str, float]:
    best = dict.fromkeys(loaders, float("inf"))
    for _ in range(ROUNDS):
        for name, loader in loaders.items():
            start = time.perf_counter()
            for images, _ in loader:
                # The network divides uint8 pixels itself: part of the work that ToTensor does.
                _ = images.float() / 255 if images.dtype == torch.uint8 else images
            best[name] = min(best[name], time.perf_counter() - start)
    return best


if __name__ == "__main__":
    sys.exit(main())
