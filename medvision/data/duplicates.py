"""Images that show one picture though their pixels differ, as the deep audit found them: kept, and kept together.

Once they are known, they are of one group as repeats are: no split and no fold has them on two sides.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from medvision.data.grouping import connect
from medvision.data.manifest import Manifest
from medvision.files import atomic_write

PAIRS_FILE = "near_duplicates.parquet"

_TOLD = ["likeness", "kind", "examination"]
_COLUMNS = ("first", "second", *_TOLD)


def add_pairs(known: pd.DataFrame | None, found: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs that are known and those that were found, with ``examination``: the number of the first to find.

    None is ever taken back: what another model does not see would leak again, and each model would have its own split.
    """
    if known is None or known.empty:
        return found.assign(examination=1)
    new = found.assign(examination=int(known.examination.max()) + 1)
    pairs = pd.concat([known, new]).drop_duplicates(["i", "j"])
    return pairs.sort_values("likeness", ascending=False, kind="stable", ignore_index=True)


def save_pairs(pairs: pd.DataFrame, manifest: Manifest, folder: Path) -> None:
    """Write pairs of row numbers ``i`` and ``j``, as ``add_pairs`` returns them, as pairs of image_ids."""
    ids = manifest.rows.image_id.to_numpy()
    table = pd.DataFrame({"first": ids[pairs.i], "second": ids[pairs.j], **pairs[_TOLD]})
    table.attrs = {"manifest_fingerprint": manifest.fingerprint}
    atomic_write(folder / PAIRS_FILE, lambda file: table.to_parquet(file, index=False))


def load_pairs(manifest: Manifest, folder: Path) -> pd.DataFrame | None:
    """Return the pairs that were found among these very images, as row numbers; None if nobody has looked."""
    # A damaged file is as good as none: the audit makes it again.
    try:
        table = pd.read_parquet(folder / PAIRS_FILE)
        if table.attrs["manifest_fingerprint"] != manifest.fingerprint or tuple(table.columns) != _COLUMNS:
            return None
        rows = pd.Series(np.arange(len(manifest.rows)), index=manifest.rows.image_id)
        i, j = rows[table["first"]].to_numpy(), rows[table["second"]].to_numpy()
    # Arrow has errors of its own for damaged files, beside OSError, ValueError, KeyError ...
    except Exception:
        return None
    return pd.DataFrame({"i": i, "j": j, **table[_TOLD]})


def join_pairs(manifest: Manifest, pairs: pd.DataFrame) -> Manifest:
    """Return the manifest with a column ``picture``, the same for images of one picture, and with their groups joined.

    Its fingerprint stays: it is that of the images. That of a split made from it changes with the sides.
    """
    rows = manifest.rows.copy()
    pixels = pd.factorize(rows.pixel_hash)[0]
    i, j = pairs.i.to_numpy(int), pairs.j.to_numpy(int)
    rows["picture"] = connect([pixels], i, j)
    rows["group"] = connect([rows.group.to_numpy()], i, j)
    return dataclasses.replace(manifest, rows=rows)
