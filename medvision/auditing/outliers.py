"""Images that are unlike all others: a photo among X-rays, a scanned letter, another part of the body."""

from __future__ import annotations

import numpy as np

_NEIGHBOURS = 10
_BLOCK = 512
# Robust standard deviations above the median. Of 5,824 chest X-rays none reaches 4.3; photos, brain slices and skin
# lesions among them reach 5.3 to 7.
_FAR = 5.0


def find_outliers(points: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Return the row numbers of outliers, the farthest first.

    An image is one if its tenth nearest neighbour is far, or much of it lies outside of the space that the images span:
    five robust standard deviations (1.4826 times the median absolute deviation) above the median of the logarithms.

    Parameters
    ----------
    points: float32 (n, d), principal components.
    residuals: float32 (n,), the squared length of what these leave out.
    """
    if len(points) <= 5 * _NEIGHBOURS:
        return np.array([], dtype=int)
    far = np.maximum(_deviations(_distances(points)), _deviations(residuals))
    rows = np.flatnonzero(far >= _FAR)
    return rows[np.argsort(-far[rows], kind="stable")]


def _distances(points: np.ndarray) -> np.ndarray:
    lengths = np.square(points).sum(axis=1)
    distances = np.empty(len(points))
    for start in range(0, len(points), _BLOCK):
        part = slice(start, start + _BLOCK)
        squared = lengths[part, None] + lengths - 2 * points[part] @ points.T
        # The first neighbour is the image itself.
        distances[part] = np.partition(squared, _NEIGHBOURS, axis=1)[:, _NEIGHBOURS]
    return np.sqrt(np.maximum(distances, 0))


def _deviations(values: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(values, 1e-6))
    median = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - median))
    return (logs - median) / max(spread, 1e-6)
