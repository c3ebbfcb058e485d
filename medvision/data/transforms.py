"""Augmentation of training images, reproducible image by image."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from medvision.config import TransformConfig


class Augmentation:
    """Random flips, small affine moves and light changes of brightness and contrast.

    The result depends on the seed alone, not on what was augmented before: a training that is resumed, or that uses
    more worker processes, sees the same images.
    """

    def __init__(self, config: TransformConfig) -> None:
        # albumentations asks the package index for its newest version when it is imported, unless told not to.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A

        self._compose = A.Compose(
            [
                A.HorizontalFlip(p=config.horizontal_flip),
                A.VerticalFlip(p=config.vertical_flip),
                A.Affine(
                    rotate=(-config.rotation, config.rotation),
                    translate_percent=(-config.shift, config.shift),
                    scale=(1 - config.scale, 1 + config.scale),
                    p=1.0,
                ),
                A.RandomBrightnessContrast(config.brightness, config.contrast, p=0.5),
            ]
        )

    def __call__(self, image: np.ndarray, *, seed: tuple[int, ...]) -> np.ndarray:
        """Return an augmented copy of a uint8 image (height, width, channels)."""
        self._compose.set_random_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        augmented: dict[str, Any] = self._compose(image=np.ascontiguousarray(image))
        return augmented["image"]
