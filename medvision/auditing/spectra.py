"""Candidates for copies that were cropped, shifted or turned a little: images whose spectra are alike.

The magnitudes of an image's frequencies stay as they are when what it shows is moved; they are turned and stretched
with it when it is turned or zoomed (Reddy and Chatterji, IEEE Transactions on Image Processing, 1996).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_FREQUENCIES = 14
_DIMENSIONS = 64
_FITTED_ON = 5000
_NEIGHBOURS = 2
# Zooms and turns in degrees under which each image asks for its likes, as it is and mirrored. Of copies that were
# cropped by up to a fifth, shifted by 4 pixels of 64, or turned by 8 degrees, among 9,500 synthetic images, 2,900 brain
# slices and 5,800 chest X-rays, 98 to 100 % have their original among the nearest two; by gradients it was 40 to 74 %.
_VIEWS = ((1.0, 0.0), (0.9, 0.0), (0.8, 0.0), (1.0, -7.0), (1.0, 7.0))
# Images a block: of 50,000 images, two times 25 MB of likenesses are held at a time.
_BLOCK = 128


def find_alike(thumbnails: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Find for each image the two others whose spectra are most like its own.

    Parameters
    ----------
    thumbnails: uint8 (n, side, side).
    rows: int (m,), the images to compare.

    Returns
    -------
    int (n_pairs, 2): pairs of positions in ``rows``, the smaller one first; each pair once.
    """
    if len(rows) <= _NEIGHBOURS:
        return np.empty((0, 2), dtype=int)
    project = _fit(thumbnails, rows)
    known = np.concatenate([project(_spectra(thumbnails[rows[part]])) for part in _blocks(len(rows))])
    found = []
    for part in _blocks(len(rows)):
        likeness = np.full((part.stop - part.start, len(rows)), -np.inf, dtype=np.float32)
        for view in _views(thumbnails[rows[part]]):
            np.maximum(likeness, project(view) @ known.T, out=likeness)
        found.append(_nearest(likeness, part.start))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def find_neighbours(directions: np.ndarray) -> np.ndarray:
    """Return the pairs i < j in which one of the directions (n, d), of unit length, is among the nearest of the other.

    Unlike spectra, embeddings of a network know a picture of which less than a half is left.
    """
    if len(directions) <= _NEIGHBOURS:
        return np.empty((0, 2), dtype=int)
    found = [_nearest(directions[part] @ directions.T, part.start) for part in _blocks(len(directions))]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _fit(thumbnails: np.ndarray, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns spectra into directions, whose products are likenesses.

    All principal components weigh alike (whitening; Jegou and Chum, ECCV 2012): the first ones tell kinds of images
    apart, the later ones images.
    """
    from sklearn.decomposition import PCA

    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _FITTED_ON)).astype(int)]
    spectra = np.concatenate([_spectra(thumbnails[some[part]]) for part in _blocks(len(some))])
    components = min(_DIMENSIONS, len(some) - 1)
    pca = PCA(components, whiten=True, svd_solver="randomized", random_state=0)
    pca.fit(spectra.reshape(len(spectra), -1))

    def project(spectra: np.ndarray) -> np.ndarray:
        points = pca.transform(spectra.reshape(len(spectra), -1)).astype(np.float32)
        return points / (np.linalg.norm(points, axis=1, keepdims=True) + 1e-12)

    return project


def _views(images: np.ndarray) -> Iterator[np.ndarray]:
    for zoom, degrees in _VIEWS:
        spectra = _spectra(_turn(images, zoom, degrees))
        yield spectra
        # Mirrored, an image has the rows of its spectrum in the other order.
        yield spectra[:, ::-1]


def _turn(images: np.ndarray, zoom: float, degrees: float) -> np.ndarray:
    """Return images turned around their middle, of which that share of the side is left, at the size of before."""
    side, angle = images.shape[1], np.radians(degrees)
    line = np.arange(side) - (side - 1) / 2
    across = zoom * (np.cos(angle) * line - np.sin(angle) * line[:, None])
    down = zoom * (np.sin(angle) * line + np.cos(angle) * line[:, None])
    x, y = (np.clip(where + (side - 1) / 2, 0, side - 1).astype(np.float32) for where in (across, down))
    left, top = (np.minimum(where.astype(int), side - 2) for where in (x, y))
    right_share, low_share = x - left, y - top
    upper = images[:, top, left] * (1 - right_share) + images[:, top, left + 1] * right_share
    lower = images[:, top + 1, left] * (1 - right_share) + images[:, top + 1, left + 1] * right_share
    return upper * (1 - low_share) + lower * low_share


def _spectra(images: np.ndarray) -> np.ndarray:
    """Return the logarithms of the magnitudes of low frequencies; float32 (n, 29, 15), frequency 0 in the middle."""
    from scipy.fft import rfft2
    from scipy.ndimage import gaussian_filter

    window = np.hanning(images.shape[1]).astype(np.float32)
    centred = images - images.mean(axis=(1, 2), dtype=np.float32, keepdims=True)
    spectra = np.abs(rfft2(centred * window[:, None] * window, axes=(1, 2)))
    low = np.concatenate([spectra[:, -_FREQUENCIES:], spectra[:, : _FREQUENCIES + 1]], axis=1)[:, :, : _FREQUENCIES + 1]
    low = gaussian_filter(low, (0, 0.7, 0.7))
    # Far below the mean there is nothing but noise.
    return np.log(low + 0.5 * low.mean(axis=(1, 2), keepdims=True) + 1e-3)


def _nearest(likeness: np.ndarray, start: int) -> np.ndarray:
    """Return the pairs of each row of ``likeness``, which stands for image ``start`` and those after it."""
    here = np.arange(len(likeness))
    likeness[here, start + here] = -np.inf
    found = []
    for _ in range(_NEIGHBOURS):
        nearest = likeness.argmax(axis=1)
        likeness[here, nearest] = -np.inf
        found.append(np.column_stack([start + here, nearest]))
    return np.concatenate(found)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))
