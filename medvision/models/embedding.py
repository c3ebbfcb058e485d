"""What the backbone of a network says of images, without its head."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from medvision.models.network import Network


@torch.inference_mode()
def embed_batches(network: Network, batches: Iterable[Tensor], *, device: torch.device, half: bool) -> np.ndarray:
    """Return the embeddings of batches of images (B, C, H, W), uint8 in [0, 255]; float32 (n, n_features).

    ``half`` computes in bfloat16. The network stays on ``device``, in training if it was.
    """
    was_training = network.training
    # Convolutions on this layout are faster, on CPUs as on GPUs.
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        embedded = [network.embed(batch.to(device)).float().cpu().numpy() for batch in batches]
    network.train(was_training)
    return np.concatenate(embedded)
