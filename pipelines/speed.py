"""Measure how fast a package answers on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.config import Config
    from medvision.records import Speed


def measure_package(package: Path, config: Config) -> Speed:
    """Load a package and measure it where it would be evaluated."""
    import torch

    from medvision.evaluation.scoring import place
    from medvision.evaluation.speed import measure_speed
    from medvision.models.devices import choose_device
    from medvision.models.package import load_package
    from medvision.tracking.hardware import describe

    info, networks = load_package(package)
    device, machine = choose_device(config.performance), describe()
    is_gpu = device.type == "cuda" and machine["gpus"]
    hardware = machine["gpus"][0] if is_gpu else f"{machine['cpu']}, threads: {torch.get_num_threads()}"
    size_bytes = sum(file.stat().st_size for file in package.iterdir())
    placed = [place(network, device) for network in networks]
    return measure_speed(info, placed, size_bytes=size_bytes, hardware=hardware)
