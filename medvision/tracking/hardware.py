"""What the machine is, and what it is doing: the one adapter over psutil and GPUtil."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import psutil


def describe() -> dict[str, Any]:
    """Return the machine's processor, cores, memory in GiB, and the names of its GPUs."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [gpu.name for gpu in _gpus()],
    }


def sample() -> dict[str, float]:
    """Return the present load: percentages in [0, 100], memory of this process in MB, temperatures in degrees Celsius.

    The processor's load is that since the last call; the first call of a process returns 0 for it.
    """
    figures = {
        "cpu_percent": psutil.cpu_percent(),
        "memory_percent": psutil.virtual_memory().percent,
        "process_memory_mb": psutil.Process().memory_info().rss / 1e6,
    }
    for gpu in _gpus():
        figures[f"gpu{gpu.id}_percent"] = 100.0 * gpu.load
        figures[f"gpu{gpu.id}_memory_percent"] = 100.0 * gpu.memoryUtil
        figures[f"gpu{gpu.id}_temperature_c"] = gpu.temperature
    return figures


def _gpus() -> list[Any]:
    # Without setuptools, Python 3.12 has no distutils, which GPUtil imports; with a broken driver nvidia-smi prints a
    # sentence, which GPUtil takes for a table.
    try:
        import GPUtil

        return list(GPUtil.getGPUs())
    except (ImportError, ValueError, IndexError):
        return []


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
