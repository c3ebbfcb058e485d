"""Probabilities of a network for images that are already decoded and resized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvision.errors import DataInvalid

if TYPE_CHECKING:
    import torch


def place(network: torch.nn.Module, device: str | torch.device) -> torch.nn.Module:
    """Move a network to where it scores, in evaluation mode: once, since even a needless move takes milliseconds."""
    import torch

    # Convolutions on this layout are faster, on CPUs as on GPUs.
    return network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def score(network: torch.nn.Module, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Return class probabilities, (n, k) float32, where ``place`` has put the network.

    Parameters
    ----------
    network: takes uint8 images (batch, C, H, W), normalizes them itself, returns logits (batch, k).
    images: (n, H, W, C) uint8, n >= 1; a memory map is read batch by batch.
    """
    import torch

    if len(images) == 0:
        raise DataInvalid("Expected at least one image to score, found none. Check the split that is evaluated.")
    device = next(network.parameters()).device
    scores = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            # The copy makes a read-only memory map writable, which torch insists on.
            batch = torch.from_numpy(np.array(images[start : start + batch_size]))
            logits = network(batch.permute(0, 3, 1, 2).to(device))
            scores.append(logits.float().softmax(dim=1).cpu().numpy())
    return np.concatenate(scores)
