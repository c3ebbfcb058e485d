"""From image files to labels and probabilities, through the very functions that evaluation uses."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medvision.data.decode import DATASET_FORMATS, ImageSource
from medvision.evaluation.conformal import prediction_sets
from medvision.evaluation.domain import domain_distances, domain_preprocessing
from medvision.evaluation.explain import package_saliency
from medvision.evaluation.operating_point import is_called
from medvision.evaluation.scoring import Scores, scores_of
from medvision.models.package import load_package
from medvision.records import Preprocessing, record_fingerprint
from medvision.serving.engines import TorchEngine, open_engine
from medvision.serving.reading import Form, Forms, read_forms


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

    def __init__(
        self, package: Path, *, device: torch.device | None = None, batch_size: int = 32, engine: str = "torch",
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        """Load a package, whole and undamaged; ``cache`` is where engines other than torch keep what they export."""
        self.info, networks = load_package(package)
        self.digest = record_fingerprint(self.info)
        # What explains an answer is PyTorch, whatever computes it.
        self._torch = TorchEngine(networks, device or torch.device("cpu"), batch_size)
        self.engine = open_engine(engine, self._torch, cache=cache or package, digest=self.digest)
        self._explaining = threading.Lock()
        self.forms = sorted({_form(member.preprocessing) for member in self.info.members})

    def predict(
        self, sources: Sequence[ImageSource | Path | bytes], *, formats: tuple[str, ...] = DATASET_FORMATS
    ) -> list[Prediction]:
        """Predict images given as paths or as the bytes of their files; DecodeRejected names what is no image."""
        return self.answer([self.read(source, formats=formats) for source in sources])

    def read(self, source: ImageSource | Path | bytes, *, formats: tuple[str, ...] = DATASET_FORMATS) -> Forms:
        """Decode an image, once for each window, and return it as the members take it; DecodeRejected if it is none.

        A window of the source's own is passed over: the members see what they were trained on.
        """
        return read_forms(source, self.forms, formats)

    def domain_distance(self, image: Forms) -> float | None:
        """Return how unlike train an image that was read is, outside of the domain above 1; None without a domain."""
        if self.info.domain is None:
            return None
        form = _form(domain_preprocessing(self.info))
        return float(domain_distances(image[form][np.newaxis], self.info.domain)[0])

    def answer(self, images: Sequence[Forms]) -> list[Prediction]:
        """Predict images that were read."""
        return [self.name_row(row) for row in self.score(images).y_score]

    def score(self, images: Sequence[Forms]) -> Scores:
        """Return the probabilities of images that were read, and those of each member."""
        inputs = {form: np.stack([image[form] for image in images]) for form in self.forms}
        return scores_of(self.info, self.engine.logits(lambda member: inputs[_form(member)]))

    def explain(self, image: Forms, label: str) -> np.ndarray:
        """Return where in an image the networks see a class, float32 (H, W) in [0, 1] of the largest member's input."""
        index = self.info.classes.index(label)
        with self._explaining:
            return package_saliency(
                self.info, self._torch.networks, lambda member: image[_form(member)][np.newaxis], 0, index
            )

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

    def name_row(self, row: np.ndarray) -> Prediction:
        """Return probabilities (k,) by the names of their classes, and the most probable one."""
        best = int(row.argmax())
        probabilities = {name: float(value) for name, value in zip(self.info.classes, row, strict=True)}
        return Prediction(self.info.classes[best], float(row[best]), probabilities)


def _form(preprocessing: Preprocessing) -> Form:
    return preprocessing.window, preprocessing.image_size, preprocessing.channels
