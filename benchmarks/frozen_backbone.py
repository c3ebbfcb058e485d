"""50 epochs of a frozen backbone: medvision.fit, which runs it once, against running it on the images every epoch.

Speed: ``fit`` is measured whole, from decoded images to the best checkpoint. The baseline's epoch (augment, embed,
train the head, score val) is measured on some of the images and extrapolated in proportion to images and epochs: it
costs the backbone's passes, which cost the same for each image. Both embed train in the same precision, val in float32.

Accuracy: on a subset of train, both run all epochs with the same recipe of the head, nothing extrapolated; the baseline
sees freshly augmented images in each epoch. Each keeps its best epoch on val; both are scored on the whole test split.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _table import Measurement, below_test_data, data_parser, needed, report
from torch import nn
from torch.nn import functional as F

from medvision.config import Config, DatasetConfig, PathsConfig, PerformanceConfig, TrainingConfig, TransformConfig
from medvision.data.cache import open_cache
from medvision.data.loading import to_tensor
from medvision.data.manifest import load_or_build_manifest
from medvision.data.normalization import compute_normalization
from medvision.data.split import make_split
from medvision.data.transforms import Augmentation
from medvision.evaluation.scoring import compute_logits, place
from medvision.models.catalog import Architecture, find
from medvision.models.network import Network, build_network
from medvision.models.optimizers import build_optimizer
from medvision.records import Normalization, Silence
from medvision.training.classifier import class_weights, warmup_cosine
from medvision.training.fit import LabelledImages, choose_embedding_precision, fit, resolve_recipe

MODEL = "mobilenetv2_100"
PATIENTS = r"(person\d+)_|(NORMAL2-IM-\d+)|(IM-\d+)"


def main() -> int:
    """Measure and print."""
    parser = data_parser(__doc__, "chest-xray")
    weights = below_test_data("..", "weights", f"{MODEL}_imagenet.pth")
    parser.add_argument("--weights", type=Path, default=weights, help=f"file of {MODEL}'s weights")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--images", type=int, default=200, help="train images of the comparison of accuracy")
    parser.add_argument("--speed-images", type=int, default=10**9, help="train images that fit is timed on, at most")
    parser.add_argument("--sample", type=int, default=320, help="images that the baseline's epoch is timed on")
    arguments = parser.parse_args()
    path = needed(arguments.dataset_path, "--dataset-path")
    weights = needed(arguments.weights, "--weights")
    with tempfile.TemporaryDirectory() as folder:
        bench = _prepare(path, weights, arguments.epochs, Path(folder))
        speed, speed_note = _compare_speed(bench, arguments)
        print(f"{speed.what}: {speed.figure:.1f}x. {speed_note}", file=sys.stderr)
        accuracy, accuracy_note = _compare_accuracy(bench, arguments)
    title = f"{arguments.epochs} epochs of a head on a frozen {MODEL}, {path.name}"
    return report(title, [speed, accuracy], f"{speed_note}\n{accuracy_note}")


@dataclasses.dataclass(frozen=True)
class Bench:
    """What both sides start from."""

    config: Config
    data: LabelledImages
    test: np.ndarray
    architecture: Architecture
    normalization: Normalization
    folder: Path

    def build(self) -> Network:
        """Build the network, the same at each call."""
        torch.manual_seed(self.config.training.seed)
        statistics = self.normalization
        pretrained = self.config.training.pretrained
        return build_network(self.architecture, mean=statistics.mean, std=statistics.std, pretrained=pretrained)

    def some(self, n_train: int, n_val: int) -> LabelledImages:
        """Return the data with so many rows of train and val at most, drawn at random."""
        random = np.random.default_rng(42)
        train, val = (
            np.sort(random.choice(rows, n, replace=False)) if n < len(rows) else rows
            for rows, n in ((self.data.train, n_train), (self.data.val, n_val))
        )
        return dataclasses.replace(self.data, train=train, val=val)


def _prepare(path: Path, weights: Path, epochs: int, folder: Path) -> Bench:
    entry = find(MODEL)
    # Patience is as long as the training: both sides run every epoch.
    training = TrainingConfig(model=MODEL, pretrained=weights, epochs=epochs, patience=epochs)
    config = Config(
        dataset=DatasetConfig(path=path, patient_pattern=PATIENTS),
        transform=TransformConfig(horizontal_flip=0.0),
        training=resolve_recipe(training, entry),
        performance=PerformanceConfig(accelerator="cpu"),
        paths=PathsConfig(state=folder / "state"),
    )
    manifest = load_or_build_manifest(config)
    split = make_split(manifest, config.dataset)
    n_classes = len(manifest.classes)
    architecture = entry.architecture(n_classes=n_classes, channels=3)
    images = open_cache(manifest, image_size=architecture.image_size, channels=3, folder=folder)
    labels = manifest.rows.label.to_numpy()
    train, val, test = (split.indices(side) for side in ("train", "val", "test"))
    data = LabelledImages(images, labels, train, val, n_classes, manifest.fingerprint)
    normalization = compute_normalization(manifest, split, channels=3)
    return Bench(config, data, test, architecture, normalization, folder)


def _compare_speed(bench: Bench, arguments: Any) -> tuple[Measurement, str]:
    data = bench.some(arguments.speed_images, arguments.speed_images)
    start = time.perf_counter()
    _fit(bench, data, "speed")
    ours_s = time.perf_counter() - start
    print(f"fit: {ours_s:.0f} s; the baseline comes next", file=sys.stderr)
    train_s, val_s = _time_epoch(bench, arguments.sample)
    epoch_s = train_s * len(data.train) + val_s * len(data.val)
    baseline_s = epoch_s * arguments.epochs
    detail = f"{ours_s:.0f} s / {baseline_s:.0f} s, extrapolated"
    note = (
        f"Speed: {len(data.train)} train and {len(data.val)} val images, {bench.config.training.views} views. "
        f"Baseline: {1000 * train_s:.1f} ms a train image, {1000 * val_s:.1f} ms a val image, measured on "
        f"{min(arguments.sample, len(bench.data.train))} and {min(arguments.sample, len(bench.data.val))} images, "
        f"makes {epoch_s:.0f} s an epoch."
    )
    return Measurement("speed / backbone in every epoch", baseline_s / ours_s, 20, detail=detail), note


def _time_epoch(bench: Bench, n_images: int) -> tuple[float, float]:
    """Return the seconds a train image and a val image of the baseline's epoch, after one that warms up."""
    data = bench.some(n_images, n_images)
    baseline = Baseline(bench, data)
    baseline.train_epoch(0)
    start = time.perf_counter()
    baseline.train_epoch(1)
    middle = time.perf_counter()
    baseline.val_accuracy()
    return (middle - start) / len(data.train), (time.perf_counter() - middle) / len(data.val)


def _compare_accuracy(bench: Bench, arguments: Any) -> tuple[Measurement, str]:
    data = bench.some(arguments.images, arguments.images // 2)
    start = time.perf_counter()
    ours = _test_accuracy(bench, _fit(bench, data, "accuracy"))
    middle = time.perf_counter()
    print(f"fit on the subset: {middle - start:.0f} s; the baseline's epochs come next", file=sys.stderr)
    baseline = _test_accuracy(bench, Baseline(bench, data).train())
    end = time.perf_counter()
    note = (
        f"Accuracy: {len(data.train)} train, {len(data.val)} val, {len(bench.test)} test images, no patient on two "
        f"sides; {middle - start:.0f} s and {end - middle:.0f} s, nothing extrapolated (small sets gain less: an "
        "epoch of the head has a fixed cost)."
    )
    detail = f"{100 * ours:.1f} % / {100 * baseline:.1f} % on test"
    return Measurement("accuracy, points behind", 100 * (baseline - ours), 1, True, "", detail), note


def _fit(bench: Bench, data: LabelledImages, name: str) -> Network:
    network = bench.build()
    fit(network, data, bench.config, recorder=Silence(), folder=bench.folder / name)
    return network


def _test_accuracy(bench: Bench, network: Network) -> float:
    logits = compute_logits(place(network, "cpu"), bench.data.images[bench.test], batch_size=64)
    return float((logits.argmax(axis=1) == bench.data.labels[bench.test]).mean())


class Baseline:
    """The usual way: in each epoch augment every image, run the frozen backbone on it, and train the head."""

    def __init__(self, bench: Bench, data: LabelledImages) -> None:
        self._data, self._training = data, bench.config.training
        self._network = bench.build().to(memory_format=torch.channels_last)
        self._network.backbone.requires_grad_(False)
        self._half, _ = choose_embedding_precision(bench.config.performance)
        self._augment = Augmentation(bench.config.transform)
        recipe = self._training
        self._optimizer = build_optimizer(self._network.head, recipe.optimizer, recipe.lr, recipe.weight_decay)
        self._weights = class_weights(torch.from_numpy(data.labels[data.train]), data.n_classes)
        total = recipe.epochs * math.ceil(len(data.train) / recipe.batch_size)
        warmup = round(recipe.warmup_epochs * total / recipe.epochs)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: warmup_cosine(step, warmup, total)
        )

    def train(self) -> Network:
        """Train all epochs; return the network as it was in the best."""
        best, best_head = -1.0, {}
        for epoch in range(self._training.epochs):
            self.train_epoch(epoch)
            accuracy = self.val_accuracy()
            if accuracy > best:
                best, best_head = accuracy, copy.deepcopy(self._network.head.state_dict())
        self._network.head.load_state_dict(best_head)
        return self._network

    def train_epoch(self, epoch: int) -> None:
        """Train one epoch."""
        network = self._network.train()
        for rows in self._batches(epoch):
            embeddings = self._embed(rows, epoch)
            labels = torch.from_numpy(self._data.labels[rows])
            losses = F.cross_entropy(network.head(embeddings), labels, weight=self._weights, reduction="none")
            self._optimizer.zero_grad()
            losses.mean().backward()
            nn.utils.clip_grad_norm_(network.head.parameters(), self._training.gradient_clip)
            self._optimizer.step()
            self._schedule.step()

    def val_accuracy(self) -> float:
        """Run the network on val."""
        logits = compute_logits(place(self._network, "cpu"), self._data.images[self._data.val], batch_size=64)
        return float((logits.argmax(axis=1) == self._data.labels[self._data.val]).mean())

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        order = np.random.default_rng([self._training.seed, epoch]).permutation(self._data.train)
        size = self._training.batch_size
        return (order[start : start + size] for start in range(0, len(order), size))

    def _embed(self, rows: np.ndarray, epoch: int) -> torch.Tensor:
        # Other seeds than those of medvision's views, new ones in each epoch.
        images = [
            self._augment(self._data.images[row], seed=(self._training.seed, 1000 + epoch, int(row))) for row in rows
        ]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            return self._network.embed(to_tensor(np.stack(images))).float()


if __name__ == "__main__":
    sys.exit(main())
