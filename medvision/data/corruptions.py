"""Images that are made worse, to see what a model can bear: eight kinds of corruption at five severities.

Kinds and grades follow ImageNet-C (Hendrycks and Dietterich, ICLR 2019), with what befalls medical images: noise of a
low dose, motion, another window or display, a slanted patient, lossy archives, a coarser detector.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from medvision.data.cache import ImageRows

SEVERITIES = (1, 2, 3, 4, 5)


def _noise(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    sigma = (5, 10, 20, 30, 45)[severity - 1]
    return _to_uint8(image + generator.normal(0, sigma, (*image.shape[:2], 1)))


def _blur(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    # In parts of the side: the same blur for every size of input.
    sigma = (0.004, 0.008, 0.013, 0.02, 0.03)[severity - 1] * image.shape[0]
    return cv2.GaussianBlur(image, (0, 0), sigma)


def _brightness(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    return _to_uint8(image.astype(float) + _either_sign(generator) * (13, 26, 38, 51, 77)[severity - 1])


def _contrast(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    factor = (0.85, 0.7, 0.55, 0.4, 0.3)[severity - 1]
    return _to_uint8(image.mean() + factor * (image - image.mean()))


def _gamma(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    gamma = (1.15, 1.3, 1.5, 1.8, 2.2)[severity - 1] ** _either_sign(generator)
    return _to_uint8(255 * (image / 255.0) ** gamma)


def _rotation(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    angle, side = _either_sign(generator) * (3, 6, 10, 15, 25)[severity - 1], image.shape[0]
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, 1.0)
    return cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _jpeg(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    # OpenCV takes the last channel for red.
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, (60, 40, 25, 15, 8)[severity - 1]])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)).reshape(image.shape)
    return np.ascontiguousarray(decoded[..., ::-1])


def _resolution(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    side = image.shape[0]
    small = max(2, round(side * (0.75, 0.5, 0.375, 0.25, 0.15)[severity - 1]))
    return cv2.resize(
        cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (side, side), interpolation=cv2.INTER_LINEAR
    )


_KINDS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "gamma": _gamma,
    "rotation": _rotation,
    "jpeg": _jpeg,
    "resolution": _resolution,
}
CORRUPTIONS = tuple(_KINDS)


def corrupt(image: np.ndarray, kind: str, severity: int, *, seed: int) -> np.ndarray:
    """Return a worse image, uint8 (side, side, 1 or 3) as the given one; the same for the same seed.

    Parameters
    ----------
    kind: one of CORRUPTIONS. Noise is the same in all channels, as in a gray image that was saved in colour.
    severity: 1 (seen when looked for) to 5 (gross), of the same noise, to the same side.
    """
    generator = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    return _KINDS[kind](image, severity, generator).reshape(image.shape)


@dataclass(frozen=True)
class CorruptedImages:
    """Images that are corrupted when they are read."""

    images: np.ndarray | ImageRows
    kind: str
    severity: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> np.ndarray:
        places = range(*part.indices(len(self)))
        read = zip(places, self.images[part], strict=True)
        return np.stack([corrupt(image, self.kind, self.severity, seed=place) for place, image in read])


def _either_sign(generator: np.random.Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
