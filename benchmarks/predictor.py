"""Serving's predictor after decoding, against the bare network on tensors that are decoded already.

The bare network runs in the faster of two memory layouts, in inference mode, on uint8 tensors; the predictor's part is
from uint8 squares to probabilities. Both compute with the same weights and the same number of threads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _table import Measurement, report

from medvision.evaluation.scoring import score_package
from medvision.models.catalog import find
from medvision.models.network import build_network
from medvision.models.package import describe, load_package, save_package
from medvision.serving.predictor import Predictor

BUDGET = 0.9
CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each batch size")
    arguments = parser.parse_args()
    torch.manual_seed(42)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        _pack(package, arguments.model)
        measurements = [_measure(package, batch, arguments.seconds) for batch in (1, 32)]
    return report(f"Predictor of {arguments.model}, after decoding", measurements, "Medians, in turns. Random weights.")


def _pack(package: Path, model: str) -> None:
    architecture = find(model).architecture(n_classes=len(CLASSES), channels=3)
    network = build_network(architecture, mean=(0.4,) * 3, std=(0.2,) * 3, pretrained=False)
    lineage = dict.fromkeys(("manifest_fingerprint", "split_fingerprint", "run_key"), "benchmark")
    info = describe(network, name="b", dataset="b", classes=CLASSES, best_epoch=0, best_val_accuracy=0.0, **lineage)
    save_package(package, info, [network])


def _measure(package: Path, batch: int, seconds: float) -> Measurement:
    predictor = Predictor(package, batch_size=batch)
    info, (plain,) = load_package(package)
    last = load_package(package)[1][0].to(memory_format=torch.channels_last)
    size = info.members[0].preprocessing.image_size
    squares = np.random.default_rng(42).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    tensor = torch.from_numpy(squares).permute(0, 3, 1, 2)
    contiguous = tensor.contiguous()
    medians = _race(
        {
            "plain": lambda: _run(plain, contiguous),
            "channels_last": lambda: _run(last, tensor),
            "ours": lambda: score_package(info, predictor.engine.networks, lambda _: squares, batch_size=batch),
        },
        seconds,
    )
    bare = min(("plain", "channels_last"), key=medians.__getitem__)
    detail = f"{batch / medians['ours']:.1f} / {batch / medians[bare]:.1f} images/s, bare network {bare}"
    return Measurement(
        f"throughput / bare network, batch {batch}", medians[bare] / medians["ours"], BUDGET, detail=detail
    )


@torch.inference_mode()
def _run(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return network(images)


def _race(competitors: dict[str, Callable], seconds: float) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for compute in competitors.values():
        compute()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, compute in competitors.items():
            start = time.perf_counter()
            compute()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    sys.exit(main())
