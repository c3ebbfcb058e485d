"""Perceptual hashes: 64 bits that stay the same when an image is compressed, resized or brightened.

The signs of the low frequencies of an image against their median (Zauner, Implementation and benchmarking of perceptual
image hash functions, 2010). A flip of the image changes signs, a transposition swaps axes: the hashes of all eight
orientations come from one transform.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# The flips and quarter turns of a square: transposed first, then flipped from top to bottom, then from left to right.
ORIENTATIONS = tuple((t, v, h) for t in (False, True) for v in (False, True) for h in (False, True))

_FREQUENCIES = 8
# Images a block: of 50,000 images, 50 MB of differences are held at a time.
_BLOCK = 128


def orient(images: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    """Return images (n, side, side) in one of the eight orientations."""
    transposed, upside_down, mirrored = orientation
    images = images.transpose(0, 2, 1) if transposed else images
    images = images[:, ::-1] if upside_down else images
    return images[:, :, ::-1] if mirrored else images


def hash_thumbnails(thumbnails: np.ndarray) -> np.ndarray:
    """Return the hashes of thumbnails (n, side, side) in each orientation; uint64 (8, n)."""
    from scipy.fft import dctn

    hashes = np.empty((len(ORIENTATIONS), len(thumbnails)), dtype=np.uint64)
    for start in range(0, len(thumbnails), _BLOCK):
        part = slice(start, start + _BLOCK)
        low = dctn(thumbnails[part].astype(np.float32), axes=(1, 2))[:, 1 : _FREQUENCIES + 1, 1 : _FREQUENCIES + 1]
        for number, orientation in enumerate(ORIENTATIONS):
            hashes[number, part] = _pack(_orient_frequencies(low, orientation))
    return hashes


def near_pairs(hashes: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield the pairs of images i < j whose hashes differ in at most ``radius`` bits, with an orientation each time.

    Compared are blocks of images with all later ones, so that memory grows with their number and not with its square.

    Parameters
    ----------
    hashes: uint64 (8, n), of ``hash_thumbnails``.

    Yields
    ------
    Row numbers i and j, and the number of the orientation in which image i looks like image j as it is.
    """
    n = hashes.shape[1]
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        for orientation in range(len(hashes)):
            distances = np.bitwise_count(hashes[orientation, start:stop, None] ^ hashes[0, None, start:])
            i, j = np.nonzero(distances <= radius)
            later = j > i
            yield i[later] + start, j[later] + start, orientation


def _orient_frequencies(low: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    # A flipped cosine of odd frequency is its negative. The first frequency here is 1.
    transposed, upside_down, mirrored = orientation
    signs = 1 - 2 * (np.arange(1, _FREQUENCIES + 1) % 2)
    low = low.transpose(0, 2, 1) if transposed else low
    low = low * signs[:, None] if upside_down else low
    return low * signs if mirrored else low


def _pack(low: np.ndarray) -> np.ndarray:
    flat = low.reshape(len(low), -1)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]
