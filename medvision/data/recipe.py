"""A first recipe for a dataset that nobody has trained on yet: each setting with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Of the mean image with its mirror image. Above it left and right are alike, as in the mean of 600 brain MR slices
# (.99) and dermatoscopic images (.98), and not in chest X-rays (.95 to .97), where the heart is on one side.
_ALIKE = 0.975
# With its quarter turn, where left and right, and top and bottom, are alike: dermatoscopic images have .94.
_ROUND = 0.9
# Networks that were trained on 224 pixels see little in an image of 28 that was enlarged to 224.
_SMALL_PX = 64
_FEW, _MANY = 1_000, 5_000
_IMBALANCE = 3.0
# Largest change of brightness and contrast, where the modality tells how much either varies by itself.
_JITTER = {
    "CT": (0.05, "CT values are Hounsfield units, which all scanners share"),
    "MR": (0.2, "MR signals have no unit: they vary with scanner and protocol"),
}


@dataclass(frozen=True)
class Profile:
    """What a recipe goes by.

    ``counts``: training images a class. ``median_side``: pixels, of the shorter sides. ``mean_image``: gray (s, s), of
    the training images. ``modality``: as DICOM has it, CT say; "" if not known. ``pretrained``: a file or folder of
    weights, or whether they come from the hub. ``subgroups``: columns that the dataset brought with it.
    """

    counts: dict[str, int]
    median_side: int
    is_gray: bool
    subgroups: tuple[str, ...]
    mean_image: np.ndarray
    modality: str
    has_gpu: bool
    pretrained: bool | Path

    @property
    def n_train(self) -> int:
        """Return the number of training images."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Proposal:
    """A setting by its dotted key, the value proposed for it, and why."""

    setting: str
    value: Any
    reason: str


def propose(profile: Profile, known_models: tuple[str, ...]) -> tuple[Proposal, ...]:
    """Propose model, strategy, learning rate, batch and augmentation; ``known_models`` are those of the catalog."""
    model = _model(profile, known_models)
    return (model, *_strategy(profile, model.value), *_training(profile), *_augmentation(profile), *_beside(profile))


def _model(profile: Profile, known: tuple[str, ...]) -> Proposal:
    name = _weights_model(profile.pretrained, known)
    if name is not None:
        return Proposal("training.model", name, "the pretrained weights that were given are its own")
    if profile.pretrained is False:
        return Proposal("training.model", "simple_cnn", "no pretrained weights: a small network learns from few images")
    if profile.has_gpu:
        return Proposal("training.model", "efficientnet_b0", "a GPU trains the whole of it in minutes")
    return Proposal("training.model", "mobilenetv2_100", "the quickest pretrained backbone on a CPU")


def _weights_model(pretrained: bool | Path, known: tuple[str, ...]) -> str | None:
    """Return the model whose name a file of weights begins with; of several the longest name."""
    if isinstance(pretrained, bool):
        return None
    names = [pretrained.name] if pretrained.is_file() else sorted(path.name for path in pretrained.glob("*"))
    fitting = [model for model in known for name in names if name.startswith(model)]
    return max(fitting, key=len, default=None)


def _strategy(profile: Profile, model: str) -> Iterator[Proposal]:
    if model == "simple_cnn":
        side = max(32, min(128, profile.median_side))
        yield Proposal("transform.image_size", side, f"half of the images have {profile.median_side} pixels or fewer")
        if profile.is_gray:
            yield Proposal("transform.grayscale", True, "all images are gray, and no pretrained weights want colours")
        return
    if profile.median_side <= _SMALL_PX:
        yield Proposal("transform.image_size", 64, "enlarging small images further adds cost, and no detail")
        yield Proposal(
            "training.strategy", "full", f"images of {profile.median_side} pixels look unlike those of its pretraining"
        )
        yield Proposal("training.lr", 0.001, "all layers have to change")
        yield Proposal("training.epochs", 12, "a whole network that starts from pretrained weights needs few")
    elif profile.has_gpu and profile.n_train >= _FEW:
        yield Proposal("training.strategy", "full", f"{profile.n_train:,} training images are enough for all layers")
        yield Proposal("training.lr", 0.0003, "a tenth of that from scratch, so that what is pretrained is kept")
    else:
        why = f"{profile.n_train:,} training images are few" if profile.has_gpu else "without a GPU"
        yield Proposal("training.strategy", "head", f"{why}: the backbone is run once, and the head trains in seconds")
        yield Proposal("training.lr", 0.001, "a new head on frozen features")


def _training(profile: Profile) -> Iterator[Proposal]:
    batch = 16 if profile.n_train < _FEW else 64 if profile.n_train >= _MANY else 32
    yield Proposal("training.batch_size", batch, f"{profile.n_train:,} training images")
    rarest, most = min(profile.counts.values()), max(profile.counts.values())
    if most >= _IMBALANCE * max(1, rarest):
        yield Proposal(
            "training.imbalance",
            "none",
            f"the largest class has {most / max(1, rarest):.0f} times the images of the smallest, and weights distort "
            "probabilities (van den Goorbergh et al., JAMIA 2022): give evaluation.critical_classes operating points",
        )
        yield Proposal("training.monitor", "val_loss", "accuracy hardly moves with the rare classes")
    else:
        yield Proposal("training.imbalance", "weights", "the classes are of like size: weights change little")


def _augmentation(profile: Profile) -> Iterator[Proposal]:
    mean = profile.mean_image.astype(float)
    sides, ends, turn = (_likeness(mean, other) for other in (mean[:, ::-1], mean[::-1], np.rot90(mean)))
    if min(sides, ends) >= _ALIKE and turn >= _ROUND:
        alike = f"the mean image is alike in all directions (r = {min(sides, ends, turn):.2f})"
        yield Proposal("transform.horizontal_flip", 0.5, alike)
        yield Proposal("transform.vertical_flip", 0.5, alike)
        yield Proposal("transform.rotation", 180, alike)
        return
    for setting, what, likeness in (
        ("transform.horizontal_flip", "left and right", sides),
        ("transform.vertical_flip", "top and bottom", ends),
    ):
        are = "are" if likeness >= _ALIKE else "are not"
        reason = f"{what} of the mean image {are} alike (r = {likeness:.3f})"
        yield Proposal(setting, 0.5 if likeness >= _ALIKE else 0.0, reason)
    yield Proposal("transform.rotation", 10, "as much as a patient's position varies")


def _beside(profile: Profile) -> Iterator[Proposal]:
    if profile.modality in _JITTER:
        share, reason = _JITTER[profile.modality]
        yield Proposal("transform.brightness", share, reason)
        yield Proposal("transform.contrast", share, reason)
    if profile.subgroups:
        yield Proposal("evaluation.subgroups", list(profile.subgroups), "the dataset brought these columns with it")


def _likeness(image: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two images; 1 where there is nothing to tell apart."""
    if image.std() == 0:
        return 1.0
    return float(np.corrcoef(image.ravel(), other.ravel())[0, 1])
