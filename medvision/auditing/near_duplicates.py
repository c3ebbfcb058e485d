"""Images that are one picture: compressed, resized, brightened, flipped, turned, cropped or shifted copies.

Candidates come cheaply, from perceptual hashes and from neighbouring embeddings, and are then verified: two images are
copies only if their details agree. X-rays of two patients are alike in the large, and no two are alike in the ribs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from medvision.auditing.hashes import ORIENTATIONS, hash_thumbnails, near_pairs, orient
from medvision.auditing.registration import align

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
_NEIGHBOURS = 3
_CHUNK = 1024


def find_near_duplicates(
    thumbnails: np.ndarray, is_candidate: np.ndarray, embeddings: np.ndarray | None = None
) -> pd.DataFrame:
    """Find the pairs of images that show one picture.

    Parameters
    ----------
    thumbnails: uint8 (n, 64, 64).
    is_candidate: bool (n,): which images to compare; flat ones are all alike, and of exact repeats one is enough.
    embeddings: float32 (n, d) of unit length, in which neighbours are looked for; by hashes alone if None.

    Returns
    -------
    A row a pair of row numbers i < j, with ``likeness``, the correlation of their details, and ``kind``: "copy" of the
    same pose, "mirrored" (flipped or turned by quarters), or "cropped" (also shifted, or turned a little).
    """
    rows = np.flatnonzero(is_candidate)
    by_hash = _compare_hashes(thumbnails[rows])
    found = [by_hash]
    if embeddings is not None and len(rows) > _NEIGHBOURS:
        pairs = _neighbours(embeddings[rows])
        known = set(zip(by_hash.i, by_hash.j, strict=True))
        new = np.array([pair for pair in pairs.tolist() if tuple(pair) not in known], dtype=int).reshape(-1, 2)
        found.append(_compare_aligned(thumbnails[rows], new))
    pairs = pd.concat(found, ignore_index=True).sort_values("likeness", ascending=False, kind="stable")
    pairs = pairs.drop_duplicates(["i", "j"]).reset_index(drop=True)
    return pairs.assign(i=rows[pairs.i], j=rows[pairs.j])


def _compare_hashes(thumbnails: np.ndarray) -> pd.DataFrame:
    details = _details(thumbnails)
    found = []
    for i, j, number in near_pairs(hash_thumbnails(thumbnails), _RADIUS):
        for part in _chunks(len(i)):
            turned = orient(details[i[part]].astype(np.float32), ORIENTATIONS[number])
            likeness = np.einsum("nhw,nhw->n", turned, details[j[part]].astype(np.float32))
            found.append(_table(i[part], j[part], likeness, "mirrored" if number else "copy"))
    return _join(found)


def _compare_aligned(thumbnails: np.ndarray, pairs: np.ndarray) -> pd.DataFrame:
    """Lay one image of each pair over the other, in the orientation that fits best, and compare their details."""
    coarse = _details(thumbnails.reshape(len(thumbnails), 16, 4, 16, 4).mean(axis=(2, 4)), blur=None)
    found = []
    for part in _chunks(len(pairs)):
        i, j = pairs[part].T
        turned = np.stack([orient(coarse[i], each) for each in ORIENTATIONS])
        best = np.einsum("onhw,nhw->on", turned, coarse[j], dtype=np.float32).argmax(axis=0)
        for number, orientation in enumerate(ORIENTATIONS):
            here = best == number
            fixed, moving = orient(thumbnails[i[here]], orientation), thumbnails[j[here]]
            likeness = _compare_known(fixed, *align(np.ascontiguousarray(fixed), moving))
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


def _details(images: np.ndarray, blur: float | None = _DETAIL) -> np.ndarray:
    """Return images (n, h, w) without what is large in them, and of unit length, as half precision."""
    details = np.empty(images.shape, dtype=np.float16)
    for part in _chunks(len(images)):
        fine = images[part].astype(np.float32)
        fine = fine - (_blurred(fine, blur) if blur else 0)
        fine -= fine.mean(axis=(1, 2), keepdims=True)
        details[part] = fine / (np.linalg.norm(fine, axis=(1, 2), keepdims=True) + 1e-6)
    return details


def _blurred(images: np.ndarray, sigma: float = _DETAIL) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images, (0, sigma, sigma))


def _neighbours(embeddings: np.ndarray) -> np.ndarray:
    """Return the pairs i < j in which one image is among the nearest of the other; (n_pairs, 2)."""
    n = len(embeddings)
    found = []
    for part in _chunks(n, 512):
        likeness = embeddings[part] @ embeddings.T
        own = np.arange(n)[part]
        likeness[np.arange(len(own)), own] = -np.inf
        nearest = np.argpartition(-likeness, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        found.append(np.column_stack([np.repeat(own, _NEIGHBOURS), nearest.ravel()]))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _chunks(n: int, size: int = _CHUNK) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _table(i: np.ndarray, j: np.ndarray, likeness: np.ndarray, kind: str) -> pd.DataFrame:
    alike = likeness >= _LIKENESS
    return pd.DataFrame({"i": i[alike], "j": j[alike], "likeness": likeness[alike].astype(np.float64), "kind": kind})


def _join(tables: list[pd.DataFrame]) -> pd.DataFrame:
    tables = [table for table in tables if len(table)]
    none = np.array([], dtype=int)
    return pd.concat(tables, ignore_index=True) if tables else _table(none, none, none, "")
