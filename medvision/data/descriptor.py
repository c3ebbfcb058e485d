"""What an image looks like, in numbers: its layout, its edges, its gray levels and colours; no network is needed.

Three views of one image, since each sees what passes the others: noise has no layout, a photograph other edges, and a
plain field has the gray levels of nothing. All are of a small copy of the image, so that its size hardly matters.
"""

from __future__ import annotations

import cv2
import numpy as np

# Raised whenever the numbers of an image change: what was fitted to the old ones does not fit the new ones.
VERSION = 1

VIEWS = ("layout", "edges", "statistics")

_SIDE = 96
_CELLS, _DIRECTIONS = 4, 8
# ITU-R BT.601, of red and blue over green: of equal channels the luma is exactly one of them.
_LUMA = np.array([0.299, 0.114], np.float32)
# Half a gray level: what lies below is rounding.
_FAINT = 0.5 / 255
_QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def describe_images(images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the views of images in the order of VIEWS, each float32 (n, d).

    Parameters
    ----------
    images: uint8 (n, H, W, 1 or 3), n >= 1. A gray image has the same views in one channel and in three.
    """
    described = [_describe(image) for image in images]
    return tuple(np.stack(view).astype(np.float32) for view in zip(*described, strict=True))


def _describe(image: np.ndarray) -> tuple[np.ndarray, ...]:
    small = _shrink(image, _SIDE).reshape(_SIDE, _SIDE, -1).astype(np.float32) / 255
    colours = small[..., ::2] - small[..., 1:2] if small.shape[2] == 3 else np.zeros((_SIDE, _SIDE, 2), np.float32)
    gray = small[..., small.shape[2] // 2] + colours @ _LUMA
    levels = [gray, *(_shrink(gray, _SIDE // factor) for factor in (2, 4, 8))]
    layout = (levels[3] - gray.mean()) / (gray.std() + 0.02)
    statistics = [_detail(image), *map(_energies, levels), _gray_levels(levels[1]), _contrasts(levels[1])]
    statistics += [_symmetry(layout), _colours(_shrink(colours, _SIDE // 4))]
    return layout.ravel(), _edges(levels[1]), np.concatenate(statistics)


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Return the means of the squares that become the pixels of an image (side, side) or (side, side, C)."""
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _edges(gray: np.ndarray) -> np.ndarray:
    """Return how much of all edges runs in which direction in which part of the image (as HOG: Dalal, Triggs 2005)."""
    across, down = gray[:-1, 1:] - gray[:-1, :-1], gray[1:, :-1] - gray[:-1, :-1]
    direction = (np.arctan2(down, across) % np.pi * (_DIRECTIONS / np.pi)).astype(int) % _DIRECTIONS
    side = len(across)
    band = np.arange(side) * _CELLS // side
    bins = (band[:, np.newaxis] * _CELLS + band) * _DIRECTIONS + direction
    size = np.hypot(across, down)
    found = np.bincount(bins.ravel(), size.ravel(), _CELLS * _CELLS * _DIRECTIONS)
    # Of a plain field, the edges are rounding.
    return np.sqrt(found / (size.sum() + _FAINT * size.size))


def _detail(image: np.ndarray) -> np.ndarray:
    """Return the logarithms of how steep an image is between its own pixels, which the small copy does not have."""
    gray = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gray = gray.reshape(gray.shape[:2])
    steps = [cv2.absdiff(gray[:, 1:], gray[:, :-1]), cv2.absdiff(gray[1:], gray[:-1])]
    means = [(cv2.norm(step, cv2.NORM_L1) / step.size, cv2.norm(step) / step.size**0.5) for step in steps]
    return np.log(_FAINT + np.array(means).ravel() / 255)


def _energies(gray: np.ndarray) -> np.ndarray:
    """Return the logarithms of how steep an image is, across and down: mean, and root mean square of the steps."""
    steps = [np.abs(np.diff(gray, axis=axis)) for axis in (1, 0)]
    return np.log([_FAINT + value for step in steps for value in (step.mean(), np.sqrt((step**2).mean()))])


def _gray_levels(gray: np.ndarray) -> np.ndarray:
    ordered = np.sort(gray, axis=None)
    quantiles = ordered[[round(share * (ordered.size - 1)) for share in _QUANTILES]]
    below = np.searchsorted(ordered, np.arange(1, 16) / 16)
    shares = np.diff(below, prepend=0, append=ordered.size) / ordered.size
    return np.concatenate([[gray.mean(), gray.std()], quantiles, np.sqrt(shares)])


def _contrasts(gray: np.ndarray) -> np.ndarray:
    """Return the logarithm of the standard deviation in each part of the image."""
    side = len(gray) // _CELLS
    parts = gray.reshape(_CELLS, side, _CELLS, side)
    return np.log(parts.std(axis=(1, 3)).ravel() + 0.01)


def _symmetry(layout: np.ndarray) -> np.ndarray:
    return np.array([(layout * layout[:, ::-1]).mean(), (layout * layout[::-1]).mean()])


def _colours(colours: np.ndarray) -> np.ndarray:
    """Return red and blue over green: in each part of the image, on the whole, and how strong they get."""
    ordered = np.sort(np.abs(colours).sum(axis=2), axis=None)
    strong = ordered[[round(share * (ordered.size - 1)) for share in (0.5, 0.9, 0.99)]]
    flat = colours.reshape(-1, 2)
    return np.concatenate([_shrink(colours, _CELLS).ravel(), flat.mean(axis=0), flat.std(axis=0), strong])
