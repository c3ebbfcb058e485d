"""From image files to labels and probabilities, through the very functions that evaluation uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medvision.data.decode import DATASET_FORMATS, decode_image, fit_to_square
from medvision.evaluation.scoring import place, score
from medvision.models.package import load_package


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the most probable class, its probability, and that of every class."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class Predictor:
    """A model package, ready to answer."""

    def __init__(self, package: Path, *, device: torch.device | None = None, batch_size: int = 32) -> None:
        self.info, network = load_package(package)
        self._network = place(network, device or torch.device("cpu"))
        self._batch_size = batch_size

    def predict(
        self, sources: Sequence[Path | bytes], *, formats: tuple[str, ...] = DATASET_FORMATS
    ) -> list[Prediction]:
        """Predict images given as paths or as the bytes of their files; DecodeRejected names what is no image."""
        preprocessing = self.info.preprocessing
        squares = [
            fit_to_square(decode_image(source, formats), preprocessing.image_size, preprocessing.channels)
            for source in sources
        ]
        y_score = score(self._network, np.stack(squares), batch_size=self._batch_size)
        return [self._answer(row) for row in y_score]

    def _answer(self, row: np.ndarray) -> Prediction:
        best = int(row.argmax())
        probabilities = {name: float(value) for name, value in zip(self.info.classes, row, strict=True)}
        return Prediction(self.info.classes[best], float(row[best]), probabilities)
