"""Which images belong together: those of one patient, of one file, and of the same pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd


def group_images(rows: pd.DataFrame) -> np.ndarray:
    """Number the connected components of the graph that joins each image to its patient, its file and its pixels.

    ``rows`` has path, patient_key ("" joins nothing) and pixel_hash. Returns int (n,).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(rows)
    own = pd.Series([f"image {index}" for index in range(n)], index=rows.index)
    columns = [rows.patient_key.where(rows.patient_key != "", own), rows.path, rows.pixel_hash]
    ends, size = [], n
    for column in columns:
        numbers = pd.factorize(column)[0]
        ends.append(size + numbers)
        size += int(numbers.max()) + 1
    starts = np.tile(np.arange(n), len(columns))
    edges = (np.ones(len(starts)), (starts, np.concatenate(ends)))
    return connected_components(coo_array(edges, shape=(size, size)), directed=False)[1][:n]
