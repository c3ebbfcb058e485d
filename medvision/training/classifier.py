"""One step of training and validation, as a LightningModule."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from medvision.errors import NonFiniteLoss


class Classifier(pl.LightningModule):
    """Train ``model`` on batches of (input, label) with weighted cross entropy, a warm-up and cosine cycles.

    The model is a whole network on images, or its head alone on embeddings. Logs train_loss, train_accuracy,
    gradient_norm, lr, val_loss, val_accuracy and val_balanced_accuracy once an epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        build_optimizer: Callable[[], torch.optim.Optimizer],
        class_weights: torch.Tensor | None,
        label_smoothing: float,
        warmup_epochs: float,
        epochs: int,
        seed: int,
        cycles: int = 1,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._build_optimizer = build_optimizer
        self._class_weights: torch.Tensor | None
        self.register_buffer("_class_weights", class_weights, persistent=False)
        self._label_smoothing = label_smoothing
        self._warmup_epochs, self._epochs, self._seed = warmup_epochs, epochs, seed
        self._cycles = cycles
        self._compiled = compiled
        self._held_out: list[tuple[torch.Tensor, torch.Tensor]] = []

    def setup(self, stage: str) -> None:
        """Compile the model where that was asked for: here, since a compiled model can't be sent to a process."""
        if self._compiled:
            self.model.compile()

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with a schedule that changes the learning rate at each step."""
        optimizer = self._build_optimizer()
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warmup = round(self._warmup_epochs * total / self._epochs)
        ends = [end * total // self._epochs for end in cycle_ends(self._epochs, self._cycles)]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cyclic_cosine(step, warmup, ends))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch; NonFiniteLoss, naming epoch and step, if it is NaN or infinite."""
        if batch_idx == 0:
            # Dropout must not depend on what ran before this epoch, or a resumed run would differ.
            entropy = np.random.SeedSequence([self._seed, self.current_epoch, self.global_rank])
            torch.manual_seed(int(entropy.generate_state(1)[0]))
        inputs, labels = batch
        logits = self.model(inputs)
        losses = F.cross_entropy(
            logits, labels, weight=self._class_weights, label_smoothing=self._label_smoothing, reduction="none"
        )
        # Not divided by the weights of this batch: accumulated batches must give the gradient of one large batch.
        loss = losses.mean()
        self._check_finite(loss, "training")
        n = len(labels)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=n, prog_bar=True, sync_dist=True)
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        self.log("train_accuracy", accuracy, on_step=False, on_epoch=True, batch_size=n, sync_dist=True)
        return loss

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient by its norm, and log the norm that it had."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, gradient_clip_val or math.inf)
        # In float16 an overflow is normal: the step is left out, and the loss is scaled down.
        if torch.isfinite(norm):
            self.log("gradient_norm", norm, on_step=False, on_epoch=True)
        self.log("lr", optimizer.param_groups[0]["lr"], on_step=False, on_epoch=True)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Keep the logits of a batch."""
        inputs, labels = batch
        self._held_out.append((self.model(inputs).float(), labels))

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole val split; each rank sees all of it, so none is counted twice."""
        logits, labels = (torch.cat(parts) for parts in zip(*self._held_out, strict=True))
        self._held_out.clear()
        hit = (logits.argmax(1) == labels).double()
        sensitivities = torch.stack([hit[labels == label].mean() for label in labels.unique()])
        figures = {
            "val_loss": F.cross_entropy(logits, labels).double(),
            "val_accuracy": hit.mean(),
            "val_balanced_accuracy": sensitivities.mean(),
        }
        self._check_finite(figures["val_loss"], "validation")
        # The first device's, whose weights are saved: batch norm's statistics differ a little from device to device.
        self.log_dict(self.trainer.strategy.broadcast(figures), prog_bar=True)

    def _check_finite(self, loss: torch.Tensor, which: str) -> None:
        if not torch.isfinite(loss):
            raise NonFiniteLoss(
                f"The {which} loss became {loss.item()} in epoch {self.current_epoch}, step {self.global_step}. "
                "The last good checkpoint is kept. Lower training.lr, or look for damaged images."
            )


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Return the factor of the learning rate at a step: up in a line, then down along a half cosine to 0.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017, without restarts; linear warm-up after Goyal et al., 2017.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


def cyclic_cosine(step: int, warmup: int, ends: Sequence[int]) -> float:
    """Return the factor of the learning rate at a step of several cycles; ``ends``: the first step after each of them.

    Each falls along a half cosine to 0, and the next one starts at the top; only the first is warmed up.
    Source: Huang et al., Snapshot Ensembles: Train 1, get M for free, ICLR 2017, eq. 2; SGDR with equal periods.
    """
    cycle = min(bisect.bisect_right(ends, step), len(ends) - 1)
    start = ends[cycle - 1] if cycle else 0
    return warmup_cosine(step - start, 0 if cycle else warmup, ends[cycle] - start)


def cycle_ends(epochs: int, cycles: int) -> tuple[int, ...]:
    """Return after how many epochs each cycle ends; where they don't part evenly, some are an epoch longer.

    Whole epochs, so that val is scored at the end of each cycle; the first, with the warm-up, is never a shorter one.
    """
    return tuple(math.ceil(epochs * number / cycles) for number in range(1, cycles + 1))


def class_weights(labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return weights inverse to the frequency of each class, 1 on average over the samples."""
    counts = torch.bincount(labels, minlength=n_classes)
    return len(labels) / (n_classes * counts.clamp(min=1).float())
