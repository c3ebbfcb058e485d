"""What training leaves on disk after each epoch, and records of it: best, last, every n-th, and the ends of cycles.

Files are whole or absent. All others are written before ``last.ckpt``: a kill between them makes the resumed run
repeat the epoch, and write the same weights again.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from medvision.errors import CheckpointCorrupt
from medvision.files import atomic_write, write_json
from medvision.records import Recorder

BEST = "best_model.pth"
LAST = "last.ckpt"
HISTORY = "training_history.json"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, each whole or absent, even after a kill or on a full disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint atomically; DiskFull leaves the former one as it was."""
        atomic_write(Path(path), lambda file: torch.save(checkpoint, file))


class Snapshots(Checkpoint):
    """Record the figures of each epoch and save best, last and every ``save_every``-th state.

    ``cycle_ends``: after how many epochs each cycle of the learning rate ends, and its state is kept; () for none.
    """

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        recorder: Recorder,
        *,
        monitor: str,
        save_every: int,
        described: dict[str, Any],
        cycle_ends: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._folder, self._network, self._recorder = folder, network, recorder
        self._monitor, self._save_every, self._described = monitor, save_every, described
        self._cycle_ends = cycle_ends
        self._sign = -1.0 if monitor.endswith("loss") else 1.0
        self._best = -math.inf
        self._history: list[dict[str, float]] = []
        self._stopped = False
        self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the first epoch."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record, then save: best first, last after it."""
        epoch = trainer.current_epoch
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        score = self._sign * figures[self._monitor]
        self._history.append({"epoch": epoch, **figures})
        improved = score > self._best
        self._best = max(score, self._best)
        self._stopped = trainer.should_stop
        if trainer.is_global_zero:
            seconds = time.monotonic() - self._started
            self._recorder.metrics({**figures, **self._cycle(epoch), "epoch_seconds": seconds}, step=epoch)
            state = self._state(trainer, epoch, figures)
            if improved:
                atomic_write(self._folder / BEST, lambda file: torch.save(state, file))
            if self._save_every and (epoch + 1) % self._save_every == 0:
                atomic_write(self._folder / f"epoch_{epoch:03d}.pth", lambda file: torch.save(state, file))
            if epoch + 1 in self._cycle_ends:
                path = cycle_path(self._folder, self._cycle_ends.index(epoch + 1) + 1)
                atomic_write(path, lambda file: torch.save(state, file))
            write_json(self._folder / HISTORY, self._history)
        # On every rank: Lightning gathers what is spread over them, and writes on the first.
        trainer.save_checkpoint(self._folder / LAST)
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, plain values only."""
        return {"best": self._best, "history": self._history, "stopped": self._stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a former run."""
        self._best, self._history = state_dict["best"], state_dict["history"]

    def _cycle(self, epoch: int) -> dict[str, float]:
        return {"cycle": bisect.bisect_right(self._cycle_ends, epoch) + 1} if self._cycle_ends else {}

    def _state(self, trainer: pl.Trainer, epoch: int, figures: dict[str, float]) -> dict[str, Any]:
        return {
            "model_state_dict": self._network.state_dict(),
            "optimizer_state_dict": trainer.optimizers[0].state_dict(),
            "epoch": epoch,
            "val_acc": figures["val_accuracy"],
            "config": self._described,
        }


def cycle_path(folder: Path, number: int) -> Path:
    """Return the file of what a cycle, counted from 1, ended with; in the form of best_model.pth."""
    return folder / f"cycle_{number}.pth"


def load_best(folder: Path) -> dict[str, Any]:
    """Read best_model.pth; CheckpointCorrupt if it is missing or damaged."""
    return load_state(folder / BEST)


def load_state(path: Path) -> dict[str, Any]:
    """Read a state that was kept: plain tensors and values; CheckpointCorrupt if it is missing or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointCorrupt(f"{path} is missing. Train the model first: medvision train.") from None
    # A damaged file raises whatever its reader stumbles over: RuntimeError, EOFError, UnpicklingError, KeyError ...
    except Exception as error:
        raise CheckpointCorrupt(f"{path} is damaged ({type(error).__name__}). Train again, or restore it.") from None
