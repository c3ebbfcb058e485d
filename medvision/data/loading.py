"""Batches for training: in an order, and with augmentations, that depend on (seed, epoch, row) alone."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from medvision.config import PerformanceConfig
from medvision.data.transforms import Augmentation

# A sample is asked for by its epoch and its position, so that worker processes need no state of their own.
Ticket = tuple[int, int]
Batch = tuple[torch.Tensor, torch.Tensor]


class EpochSampler(Sampler[Ticket]):
    """Yield (epoch, position) in an order shuffled by (seed, epoch); with ``weights``, draw with replacement.

    On several devices each rank yields its share, of equal length on all.
    """

    def __init__(self, n: int, *, seed: int, weights: np.ndarray | None = None) -> None:
        self._n = n
        self._seed = seed
        self._weights = None if weights is None else weights / weights.sum()
        self._epoch = 0
        self._rank, self._world = 0, 1

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; Lightning calls it."""
        self._epoch = epoch

    def share(self, rank: int, world: int) -> None:
        """Make this the sampler of one rank out of ``world``."""
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return -(-self._n // self._world)

    def __iter__(self) -> Iterator[Ticket]:
        random = np.random.default_rng([self._seed, self._epoch])
        if self._weights is None:
            order = random.permutation(self._n)
        else:
            order = random.choice(self._n, self._n, p=self._weights)
        padded = np.resize(order, len(self) * self._world)
        return iter([(self._epoch, int(position)) for position in padded[self._rank :: self._world]])


class _Images(Dataset[Batch]):
    """Go to worker processes with the name of a memory map in place of its bytes, which would be copied to each."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: _MappedFile(value) if _is_whole_map(value) else value for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.open() if isinstance(value, _MappedFile) else value)


class _MappedFile:
    def __init__(self, values: np.memmap) -> None:
        self._path = str(values.filename)

    def open(self) -> np.ndarray:
        return np.load(self._path, mmap_mode="r")


def _is_whole_map(value: Any) -> bool:
    # A slice of a map is one too, but rests on another array.
    return isinstance(value, np.memmap) and value.mode == "r" and isinstance(value.base, mmap.mmap)


class TrainImages(_Images):
    """Augmented training images from the cache of decoded ones; uint8 (channels, height, width)."""

    def __init__(
        self, images: np.ndarray, rows: np.ndarray, labels: np.ndarray, augmentation: Augmentation, seed: int
    ) -> None:
        self._images, self._rows, self._labels = images, rows, labels
        self._augmentation, self._seed = augmentation, seed

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, tickets: list[Ticket]) -> Batch:
        """Return a whole batch at once."""
        images = [self._augmented(epoch, position) for epoch, position in tickets]
        return to_tensor(np.stack(images)), torch.from_numpy(self._labels[[position for _, position in tickets]])

    def _augmented(self, epoch: int, position: int) -> np.ndarray:
        return self._augmentation(self._images[self._rows[position]], seed=(self._seed, epoch, position))


class TrainEmbeddings(Dataset[Batch]):
    """Embeddings of K views of each training image; each epoch takes one view of each, at random.

    ``plain`` (n, features) is the first view of all images, ``augmented`` (K - 1, n, features) the others; ``rows`` are
    the training images among them.
    """

    def __init__(
        self, plain: np.ndarray, augmented: np.ndarray, rows: np.ndarray, labels: np.ndarray, seed: int
    ) -> None:
        self._plain, self._augmented, self._rows = plain, augmented, rows
        self._labels, self._seed = labels, seed

    def __len__(self) -> int:
        return len(self._labels)

    def __getitems__(self, tickets: list[Ticket]) -> Batch:
        """Return a whole batch at once."""
        positions = np.array([position for _, position in tickets])
        random = np.random.default_rng([self._seed, tickets[0][0]])
        views = random.integers(1 + len(self._augmented), size=len(self))[positions]
        rows, augmented = self._rows[positions], views > 0
        drawn = self._plain[rows]
        drawn[augmented] = self._augmented[views[augmented] - 1, rows[augmented]]
        return torch.from_numpy(drawn), torch.from_numpy(self._labels[positions])


class HeldOut(_Images):
    """Images, or embeddings, as they are, in order."""

    def __init__(self, values: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> None:
        self._values, self._rows, self._labels = values, rows, labels

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, positions: list[int]) -> Batch:
        """Return a whole batch at once."""
        values = np.asarray(self._values[self._rows[positions]])
        batch = to_tensor(values) if values.ndim == 4 else torch.from_numpy(values)
        return batch, torch.from_numpy(self._labels[positions])


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Turn uint8 (n, height, width, channels) into a tensor (n, channels, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def build_loader(
    dataset: Dataset[Batch], batch_size: int, config: PerformanceConfig, sampler: EpochSampler | None = None
) -> DataLoader[Batch]:
    """Build the loader of a dataset that returns whole batches; in order where there is no sampler."""
    workers = config.loader_workers
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        # A batch norm can't be trained on a last batch of one image.
        drop_last=sampler is not None and len(sampler) % batch_size == 1 and len(sampler) > 1,
        # Datasets with __getitems__ return whole batches, of which the stubs of torch know nothing.
        collate_fn=_as_is,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=config.prefetch if workers else None,
        persistent_workers=config.persistent_workers and workers > 0,
        multiprocessing_context="forkserver" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _as_is(batch: Batch) -> Batch:
    return batch
