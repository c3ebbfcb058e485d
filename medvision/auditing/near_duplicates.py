"""Images that are one picture: compressed, resized, brightened, flipped, turned, cropped or shifted copies.

Candidates come cheaply, from perceptual hashes, spectra and neighbouring embeddings, and are then verified: two images
are copies only if their details agree. X-rays of two patients are alike in the large, and no two in the ribs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from medvision.auditing.hashes import ORIENTATIONS, hash_thumbnails, near_pairs, orient
from medvision.auditing.registration import align
from medvision.auditing.spectra import find_alike, find_neighbours

# Compressed, resized, brightened and noisy copies of chest X-rays and brain slices differ from the original in up to 8
# bits, and 10 X-rays of other patients in 10: a wider search only makes more work for the verification.
_RADIUS = 10
# Correlation of details. Of chest X-rays and brain slices, 98 of 100 compressed, resized, brightened, cropped and
# turned copies reach 0.95. X-rays of two patients reach 0.73, or 0.9 once one is laid over the other. Neighbouring
# slices of one brain reach 0.948: of one patient, but not one picture. Of 90 pairs above 0.95 that were looked at, in
# four real sets, all were one picture, or one skin lesion taken twice.
_LIKENESS = 0.95
# Structures smaller than this many pixels of a 64-pixel thumbnail are details.
_DETAIL = 3.0
_CHUNK = 1024


def find_near_duplicates(
    thumbnails: np.ndarray, is_candidate: np.ndarray, embeddings: np.ndarray | None = None
) -> pd.DataFrame:
    """Find the pairs of images that show one picture.

    Parameters
    ----------
    thumbnails: uint8 (n, 64, 64).
    is_candidate: bool (n,): which images to compare; flat ones are all alike, and of exact repeats one is enough.
    embeddings: float32 (n, d) of unit length, by a network, whose neighbours are compared, too.

    Returns
    -------
    A row a pair of row numbers i < j, with ``likeness``, the correlation of their details, and ``kind``: "copy" of the
    same pose, "mirrored" (flipped or turned by quarters), or "cropped" (also shifted, or turned a little).
    """
    rows = np.flatnonzero(is_candidate)
    by_hash = _compare_hashes(thumbnails, rows)
    known = set(zip(by_hash.i, by_hash.j, strict=True))
    alike = find_alike(thumbnails, rows)
    if embeddings is not None:
        alike = np.unique(np.concatenate([alike, find_neighbours(embeddings[rows])]), axis=0)
    new = np.array([pair for pair in alike.tolist() if tuple(pair) not in known], dtype=int).reshape(-1, 2)
    found = [by_hash, _compare_aligned(thumbnails, rows, new)]
    pairs = pd.concat(found, ignore_index=True).sort_values("likeness", ascending=False, kind="stable")
    pairs = pairs.drop_duplicates(["i", "j"]).reset_index(drop=True)
    return pairs.assign(i=rows[pairs.i], j=rows[pairs.j])


def _compare_hashes(thumbnails: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    details = np.empty((len(rows), *thumbnails.shape[1:]), dtype=np.int8)
    hashes = np.empty((len(ORIENTATIONS), len(rows)), dtype=np.uint64)
    for part in _chunks(len(rows)):
        details[part] = _details(thumbnails[rows[part]])
        hashes[:, part] = hash_thumbnails(thumbnails[rows[part]])
    found = []
    for i, j, number in near_pairs(hashes, _RADIUS):
        for part in _chunks(len(i)):
            likeness = _correlate(orient(details[i[part]], ORIENTATIONS[number]), details[j[part]])
            found.append(_table(i[part], j[part], likeness, "mirrored" if number else "copy"))
    return _join(found)


def _compare_aligned(thumbnails: np.ndarray, rows: np.ndarray, pairs: np.ndarray) -> pd.DataFrame:
    """Lay one image of each pair over the other, in the orientation that fits best, and compare their details."""
    found = []
    for part in _chunks(len(pairs)):
        i, j = pairs[part].T
        fixed, moving = thumbnails[rows[i]], thumbnails[rows[j]]
        coarse = _shrunk(fixed), _shrunk(moving)
        best = np.argmax([_correlate(orient(coarse[0], each), coarse[1]) for each in ORIENTATIONS], axis=0)
        for number, orientation in enumerate(ORIENTATIONS):
            here = best == number
            turned = np.ascontiguousarray(orient(fixed[here], orientation))
            likeness = _compare_known(turned, *align(turned, moving[here]))
            found.append(_table(i[here], j[here], likeness, "cropped"))
    return _join(found)


def _compare_known(fixed: np.ndarray, warped: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the correlation of the details of two images where both are known; 0 where nothing is."""
    share = _blurred(known.astype(np.float32)) + 1e-6
    total = known.sum(axis=(1, 2)) + 1e-6

    def details(images: np.ndarray) -> np.ndarray:
        images = images * known.astype(np.float32)
        fine = (images - _blurred(images) / share) * known
        fine -= known * (fine.sum(axis=(1, 2)) / total)[:, None, None]
        return fine / (np.linalg.norm(fine, axis=(1, 2), keepdims=True) + 1e-6)

    return np.einsum("nhw,nhw->n", details(fixed), details(warped))


def _details(images: np.ndarray) -> np.ndarray:
    """Return images (n, h, w) without what is large in them, as bytes: of 50,000 images 205 MB, and not 820."""
    fine = images - _blurred(images.astype(np.float32))
    fine -= fine.mean(axis=(1, 2), keepdims=True)
    largest = np.abs(fine).max(axis=(1, 2), keepdims=True)
    return (fine * (127 / (largest + 1e-6))).round().astype(np.int8)


def _shrunk(images: np.ndarray) -> np.ndarray:
    """Return images (n, 64, 64) as (n, 16, 16) around zero."""
    small = images.reshape(len(images), 16, 4, 16, 4).mean(axis=(2, 4), dtype=np.float32)
    return small - small.mean(axis=(1, 2), keepdims=True)


def _correlate(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the correlation of each image (n, h, w) around zero with the other of the same position."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    powers = np.einsum("nhw,nhw->n", one, one) * np.einsum("nhw,nhw->n", other, other)
    return np.einsum("nhw,nhw->n", one, other) / (np.sqrt(powers) + 1e-6)


def _blurred(images: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images, (0, _DETAIL, _DETAIL))


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))


def _table(i: np.ndarray, j: np.ndarray, likeness: np.ndarray, kind: str) -> pd.DataFrame:
    alike = likeness >= _LIKENESS
    return pd.DataFrame({"i": i[alike], "j": j[alike], "likeness": likeness[alike].astype(np.float64), "kind": kind})


def _join(tables: list[pd.DataFrame]) -> pd.DataFrame:
    tables = [table for table in tables if len(table)]
    none = np.array([], dtype=int)
    return pd.concat(tables, ignore_index=True) if tables else _table(none, none, none, "")
