"""Which images belong together: those of one patient, of one file, of the same pixels, and of one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

_NO_PAIRS = np.empty(0, dtype=int)


def group_images(rows: pd.DataFrame) -> np.ndarray:
    """Number the connected components of the graph that joins each image to its patient, its file and its pixels.

    ``rows`` has path, patient_key ("" joins nothing) and pixel_hash. Returns int (n,).
    """
    own = pd.Series([f"image {index}" for index in range(len(rows))], index=rows.index)
    columns = [rows.patient_key.where(rows.patient_key != "", own), rows.path, rows.pixel_hash]
    return connect([pd.factorize(column)[0] for column in columns])


def connect(shared: Sequence[np.ndarray], i: np.ndarray = _NO_PAIRS, j: np.ndarray = _NO_PAIRS) -> np.ndarray:
    """Number the connected components of images, int (n,), in the order of their first images.

    ``shared``: int (n,) each, from 0: images with the same number are joined. ``i``, ``j``: so are these pairs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(shared[0])
    starts, ends, size = [i], [j], n
    for numbers in shared:
        starts.append(np.arange(n))
        ends.append(size + numbers)
        size += int(numbers.max()) + 1
    edges = (np.concatenate(starts), np.concatenate(ends))
    graph = coo_array((np.ones(len(edges[0])), edges), shape=(size, size))
    return connected_components(graph, directed=False)[1][:n]
