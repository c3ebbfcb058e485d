"""From image files to labels and probabilities, through the very functions that evaluation uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medvision.data.decode import DATASET_FORMATS, decode_image, fit_to_square
from medvision.evaluation.scoring import place, score_package
from medvision.models.package import load_package
from medvision.records import Preprocessing


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the most probable class, its probability, and that of every class."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class Predictor:
    """A model package, ready to answer."""

    def __init__(self, package: Path, *, device: torch.device | None = None, batch_size: int = 32) -> None:
        self.info, networks = load_package(package)
        self._networks = [place(network, device or torch.device("cpu")) for network in networks]
        self._batch_size = batch_size

    def predict(
        self, sources: Sequence[Path | bytes], *, formats: tuple[str, ...] = DATASET_FORMATS
    ) -> list[Prediction]:
        """Predict images given as paths or as the bytes of their files; DecodeRejected names what is no image."""
        inputs = self._inputs(sources, formats)
        scores = score_package(
            self.info, self._networks, lambda member: inputs[_form(member)], batch_size=self._batch_size
        )
        return [self._answer(row) for row in scores.y_score]

    def _inputs(self, sources: Sequence[Path | bytes], formats: tuple[str, ...]) -> dict[tuple[int, int], np.ndarray]:
        """Return the images in each form that a member takes; each is decoded once, and no large one is kept."""
        forms = {_form(member.preprocessing) for member in self.info.members}
        squares: dict[tuple[int, int], list[np.ndarray]] = {form: [] for form in forms}
        for source in sources:
            image = decode_image(source, formats)
            for form in forms:
                squares[form].append(fit_to_square(image, *form))
        return {form: np.stack(images) for form, images in squares.items()}

    def _answer(self, row: np.ndarray) -> Prediction:
        best = int(row.argmax())
        probabilities = {name: float(value) for name, value in zip(self.info.classes, row, strict=True)}
        return Prediction(self.info.classes[best], float(row[best]), probabilities)


def _form(preprocessing: Preprocessing) -> tuple[int, int]:
    return preprocessing.image_size, preprocessing.channels
