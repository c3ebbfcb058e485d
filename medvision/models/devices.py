"""Where a network computes."""

from __future__ import annotations

import torch

from medvision.config import PerformanceConfig


def choose_device(config: PerformanceConfig) -> torch.device:
    """Return the first CUDA GPU where there is one and the settings allow it, else the CPU."""
    if config.accelerator in {"auto", "gpu"} and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")
