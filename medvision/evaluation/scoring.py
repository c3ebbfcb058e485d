"""Probabilities of a model package for images that are already decoded and resized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from medvision.errors import DataInvalid
from medvision.models.ensemble import combine, member_scores
from medvision.records import PackageInfo, Preprocessing

if TYPE_CHECKING:
    import torch

NetworkType = TypeVar("NetworkType", bound="torch.nn.Module")


class Images(Protocol):
    """Images (n, H, W, C) uint8, of which a slice is read when it is asked for: an array, or rows of a cache."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class Scores:
    """Probabilities of the package, ``y_score`` (n, k) float32, and of each of its members (members, n, k) float32."""

    y_score: np.ndarray
    members: np.ndarray


def place(network: NetworkType, device: str | torch.device) -> NetworkType:
    """Move a network to where it scores, in evaluation mode: once, since even a needless move takes milliseconds."""
    import torch

    # Convolutions on this layout are faster, on CPUs as on GPUs.
    return network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def score_package(
    info: PackageInfo,
    networks: Sequence[torch.nn.Module],
    inputs: Callable[[Preprocessing], Images],
    *,
    batch_size: int,
) -> Scores:
    """Score images with a package whose networks ``place`` has put where they compute.

    ``inputs`` returns the images as a member takes them, n >= 1.
    """
    logits = [
        compute_logits(network, inputs(member.preprocessing), batch_size=batch_size)
        for member, network in zip(info.members, networks, strict=True)
    ]
    return scores_of(info, logits)


def scores_of(info: PackageInfo, logits: Sequence[np.ndarray]) -> Scores:
    """Return the scores of a package from the logits (n, k) of each of its members."""
    members = member_scores(logits, info.members)
    return Scores(combine(members, info.combination).astype(np.float32), members.astype(np.float32))


def compute_logits(network: torch.nn.Module, images: Images, *, batch_size: int) -> np.ndarray:
    """Return logits, (n, k) float32, where ``place`` has put the network.

    Parameters
    ----------
    network: takes uint8 images (batch, C, H, W) and normalizes them itself.
    images: n >= 1; a memory map is read batch by batch.
    """
    import torch

    if len(images) == 0:
        raise DataInvalid("Expected at least one image to score, found none. Check the split that is evaluated.")
    device = next(network.parameters()).device
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            # The copy makes a read-only memory map writable, which torch insists on.
            batch = torch.from_numpy(np.array(images[start : start + batch_size]))
            logits.append(network(batch.permute(0, 3, 1, 2).to(device)).float().cpu().numpy())
    return np.concatenate(logits)
