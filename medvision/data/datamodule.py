"""The two loaders of a training, as a LightningDataModule."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, Dataset

from medvision.config import PerformanceConfig
from medvision.data.loading import Batch, EpochSampler, build_loader


class TrainingData(pl.LightningDataModule):
    """Serve the train split shuffled, a share for each device, and the whole val split to each of them.

    ``sample_weights``, one a training sample, draws with replacement in their proportion.
    """

    def __init__(
        self,
        train: Dataset[Batch],
        val: Dataset[Batch],
        *,
        batch_size: int,
        seed: int,
        sample_weights: np.ndarray | None,
        performance: PerformanceConfig,
    ) -> None:
        super().__init__()
        self._train, self._val = train, val
        self._batch_size, self._seed = batch_size, seed
        self._sample_weights, self._performance = sample_weights, performance

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this device's share of the train split."""
        sampler = EpochSampler(len(self._train), seed=self._seed, weights=self._sample_weights)  # type: ignore[arg-type]
        if self.trainer is not None:
            sampler.share(self.trainer.global_rank, self.trainer.world_size)
        return build_loader(self._train, self._batch_size, self._performance, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the val split."""
        return build_loader(self._val, 4 * self._batch_size, self._performance)
