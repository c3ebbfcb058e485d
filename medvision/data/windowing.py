"""From values to gray levels: the window functions of DICOM PS3.3 C.11.2.1, each into [0, 1]."""

from __future__ import annotations

import numpy as np


def linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Apply the function LINEAR (C.11.2.1.2.1); ``width`` is at least 1, and of 1 gives a step."""
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def linear_exact(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Apply the function LINEAR_EXACT (C.11.2.1.3.2); ``width`` is above 0."""
    return np.clip((values - center) / width + 0.5, 0, 1)


def sigmoid(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Apply the function SIGMOID (C.11.2.1.3.1); ``width`` is above 0."""
    # Beyond 700, exp overflows; the result is 0 to the last digit long before.
    return 1 / (1 + np.exp(np.minimum(-4 * (values - center) / width, 700)))


def between(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Map ``black`` to 0 and ``white`` to 1; where they are the same, nothing can be seen and all is 0."""
    if white <= black:
        return np.zeros(values.shape)
    return np.clip((values - black) / (white - black), 0, 1)


def to_uint8(fractions: np.ndarray) -> np.ndarray:
    """Return [0, 1] as 0 to 255, rounded to the nearest."""
    return np.floor(fractions * 255 + 0.5).astype(np.uint8)
