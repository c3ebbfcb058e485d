"""The hardware adapter gives figures on any machine."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medvision.tracking import hardware


def test_a_sample_holds_plausible_figures() -> None:
    """Loads are percentages, and this process uses some memory."""
    figures = hardware.sample()
    assert 0 <= figures["cpu_percent"] <= 100
    assert 0 < figures["memory_percent"] <= 100
    assert figures["process_memory_mb"] > 1


def test_the_machine_is_described() -> None:
    """The description names the processor, counts its cores, and lists the GPUs, of which there may be none."""
    machine = hardware.describe()
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert isinstance(machine["gpus"], list)


@pytest.mark.parametrize(
    ("output", "n_gpus"),
    [
        ("echo 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9", 0),
        ("echo '0, GPU-1, 25, 1000, 500, 500, 550.1, NVIDIA H200, 1, Disabled, Disabled, 41'", 1),
    ],
)
def test_gpus_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, n_gpus: int) -> None:
    """A GPU is reported with load, memory and temperature; a broken driver is a machine without GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{output}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    figures = hardware.sample()
    assert len(hardware.describe()["gpus"]) == n_gpus
    if n_gpus:
        assert math.isclose(figures["gpu0_percent"], 25.0)
        assert math.isclose(figures["gpu0_memory_percent"], 50.0)
        assert math.isclose(figures["gpu0_temperature_c"], 41.0)
