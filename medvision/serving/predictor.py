"""From image files to labels and probabilities, through the very functions that evaluation uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from medvision.data.decode import DATASET_FORMATS, ImageSource, decode_image, fit_to_square
from medvision.evaluation.conformal import prediction_sets
from medvision.evaluation.operating_point import is_called
from medvision.evaluation.scoring import place, score_package
from medvision.models.package import load_package
from medvision.records import Preprocessing, record_fingerprint

# An image in each form that a member of a package takes: (window, side, channels) and uint8 (side, side, channels).
Form = tuple[str, int, int]
Forms = dict[Form, np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the most probable class, its probability, and that of every class."""

    label: str
    confidence: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Decision:
    """What a prediction comes to by what the package has frozen.

    ``prediction_set``: the classes that are not ruled out, and ``is_abstention`` unless it is one; None where the
    package has no prediction sets. ``calls``: whether each class with an operating point is called.
    """

    prediction_set: tuple[str, ...] | None
    is_abstention: bool | None
    calls: dict[str, bool]


class Predictor:
    """A model package, ready to answer."""

    def __init__(self, package: Path, *, device: torch.device | None = None, batch_size: int = 32) -> None:
        self.info, networks = load_package(package)
        self.digest = record_fingerprint(self.info)
        self._networks = [place(network, device or torch.device("cpu")) for network in networks]
        self._batch_size = batch_size
        self._forms = sorted({_form(member.preprocessing) for member in self.info.members})

    def predict(
        self, sources: Sequence[ImageSource | Path | bytes], *, formats: tuple[str, ...] = DATASET_FORMATS
    ) -> list[Prediction]:
        """Predict images given as paths or as the bytes of their files; DecodeRejected names what is no image."""
        return self.answer([self.read(source, formats=formats) for source in sources])

    def read(self, source: ImageSource | Path | bytes, *, formats: tuple[str, ...] = DATASET_FORMATS) -> Forms:
        """Decode an image, once for each window, and return it as the members take it; DecodeRejected if it is none.

        A window of the source's own is passed over: the members see what they were trained on.
        """
        source = source if isinstance(source, ImageSource) else ImageSource(source)
        windows = {window for window, _, _ in self._forms}
        images = {window: decode_image(replace(source, window=window), formats) for window in windows}
        return {form: fit_to_square(images[form[0]], *form[1:]) for form in self._forms}

    def answer(self, images: Sequence[Forms]) -> list[Prediction]:
        """Predict images that were read."""
        inputs = {form: np.stack([image[form] for image in images]) for form in self._forms}
        scores = score_package(
            self.info, self._networks, lambda member: inputs[_form(member)], batch_size=self._batch_size
        )
        return [self._answer(row) for row in scores.y_score]

    def decide(self, prediction: Prediction) -> Decision:
        """Return what a prediction comes to."""
        row = np.array([prediction.probabilities[name] for name in self.info.classes])
        calls = {
            point.class_name: bool(is_called(row[self.info.classes.index(point.class_name)], point.threshold))
            for point in self.info.operating_points
        }
        if self.info.conformal is None:
            return Decision(None, None, calls)
        held = prediction_sets(row[np.newaxis], self.info.conformal)[0]
        names = tuple(name for name, is_in in zip(self.info.classes, held, strict=True) if is_in)
        return Decision(names, len(names) != 1, calls)

    def _answer(self, row: np.ndarray) -> Prediction:
        best = int(row.argmax())
        probabilities = {name: float(value) for name, value in zip(self.info.classes, row, strict=True)}
        return Prediction(self.info.classes[best], float(row[best]), probabilities)


def _form(preprocessing: Preprocessing) -> Form:
    return preprocessing.window, preprocessing.image_size, preprocessing.channels
