"""Measure how fast a package answers on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvision.config import Config
    from medvision.models.network import Network
    from medvision.records import PackageInfo, Speed


def measure_package(info: PackageInfo, networks: Sequence[Network], folder: Path, config: Config) -> Speed:
    """Measure a package, whose files are in a folder, where it would be evaluated."""
    import torch

    from medvision.evaluation.scoring import place
    from medvision.evaluation.speed import measure_speed
    from medvision.models.devices import choose_device
    from medvision.tracking.hardware import describe

    device, machine = choose_device(config.performance), describe()
    is_gpu = device.type == "cuda" and machine["gpus"]
    hardware = machine["gpus"][0] if is_gpu else f"{machine['cpu']}, threads: {torch.get_num_threads()}"
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    placed = [place(network, device) for network in networks]
    return measure_speed(info, placed, size_bytes=size_bytes, hardware=hardware)
