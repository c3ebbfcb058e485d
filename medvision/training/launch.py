"""What a launcher said to this process: torchrun and SLURM run the whole command once a device."""

from __future__ import annotations

import os


def launched_rank() -> int | None:
    """Return this process's rank among all that a launcher started, or None if it was started alone."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    return None
