"""What a frozen backbone says of each image, computed once and kept.

A frozen backbone gives the same embedding for the same pixels in every epoch. So K augmented views of each image are
embedded once, and each epoch draws one of them: training the head costs seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from medvision.config import TransformConfig
from medvision.data.loading import to_tensor
from medvision.data.parallel import with_progress
from medvision.data.transforms import Augmentation
from medvision.files import atomic_write, fingerprint, locked
from medvision.models.embedding import embed_batches
from medvision.models.network import Network
from medvision.records import record_fingerprint

_BATCH = 64


def embed_views(
    network: Network,
    images: np.ndarray,
    rows: np.ndarray,
    *,
    views: range,
    augmentation: TransformConfig,
    seed: int,
    device: torch.device,
    half: bool,
    folder: Path,
    pixels_fingerprint: str,
) -> np.ndarray:
    """Embed views of some rows of ``images``: view 0 is the image as it is, every other one is augmented.

    ``half`` computes in bfloat16, which moves an embedding by less than another augmentation would. Kept in ``folder``
    under a fingerprint of backbone, pixels, rows, views and augmentation.

    Returns
    -------
    float32 (len(views), len(rows), n_features).
    """
    recipe = (augmentation.model_dump(), seed) if any(views) else None
    made_from = [_hash_backbone(network), pixels_fingerprint, rows.tolist(), list(views), recipe, half]
    key = fingerprint(made_from)[:24]
    path = folder / f"embeddings-{key}.npy"
    with locked(folder / f"embeddings-{key}.lock"):
        if not path.is_file():
            batches = (_view(images, rows, view, augmentation, seed) for view in views)
            embedded = [embed_batches(network, each, device=device, half=half) for each in batches]
            atomic_write(path, lambda file: _write_array(file, np.stack(embedded)))
    return np.load(path, mmap_mode="r")


def _write_array(file: BinaryIO, array: np.ndarray) -> None:
    # Not np.save: on a full disk it raises an error that does not say so.
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data)


def _view(
    images: np.ndarray, rows: np.ndarray, view: int, augmentation: TransformConfig, seed: int
) -> Iterator[torch.Tensor]:
    augment = Augmentation(augmentation) if view else None
    starts: Iterator[int] = iter(range(0, len(rows), _BATCH))
    for start in with_progress(starts, -(-len(rows) // _BATCH), f"Embedding images, view {view + 1}"):
        chunk = rows[start : start + _BATCH]
        batch = images[chunk]
        if augment:
            batch = np.stack(
                [augment(image, seed=(seed, view, int(row))) for image, row in zip(batch, chunk, strict=True)]
            )
        yield to_tensor(batch)


def _hash_backbone(network: Network) -> str:
    digest = hashlib.sha256(record_fingerprint(network.preprocessing).encode())
    for name, value in sorted(network.state_dict().items()):
        if not name.startswith("head."):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
