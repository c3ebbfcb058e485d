"""Who is trained on, who is chosen by, who is tested on: no patient and no image on two sides.

A given split is kept, and the rows that would leak out of it are dropped from the side that is further from the
test. Without one, whole groups are dealt to train, val and test, class by class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medvision.config import DatasetConfig
from medvision.data.manifest import Manifest
from medvision.errors import DataInvalid, SplitLeakage
from medvision.files import atomic_write, fingerprint
from medvision.records import SPLITS

DROPPED = "dropped"


@dataclass(frozen=True)
class Split:
    """The side of each row of a manifest: train, val, test or dropped."""

    sides: np.ndarray
    manifest_fingerprint: str
    fingerprint: str

    def indices(self, side: str) -> np.ndarray:
        """Return the manifest's row numbers of one side, in order."""
        return np.flatnonzero(self.sides == side)


@dataclass(frozen=True)
class Leak:
    """Rows of one given side that share their patient, their very pixels, or their picture with rows of another."""

    side: str
    other: str
    by: str
    rows: np.ndarray


def make_split(manifest: Manifest, config: DatasetConfig) -> Split:
    """Split a manifest.

    Raises
    ------
    SplitLeakage: the given split leaks and ``on_leak`` is "fail".
    DataInvalid: a class has too few patients, or images, to be on every side.
    """
    given = manifest.rows.given_split.to_numpy(dtype=object)
    leaks = [leak for leak in find_leaks(manifest) if len(leak.rows)]
    if leaks and config.on_leak == "fail":
        found = "; ".join(f"{len(k.rows)} {k.side} images share their {k.by} with {k.other}" for k in leaks)
        raise SplitLeakage(
            f"The given split leaks: {found}. Use --on-leak drop (leave the leaking training rows out) or "
            "--on-leak regroup (split anew)."
        )
    if leaks and config.on_leak == "regroup":
        given = np.full(len(given), "", dtype=object)
    sides = np.where(given == "", "train", given)
    sides[find_conflicting(manifest) & np.isin(sides, ["train", "val"])] = DROPPED
    sides = _drop_leaking(sides, manifest.rows.group.to_numpy())
    sides = _carve_missing(sides, manifest, config)
    _check_classes(sides, manifest)
    return _as_split(sides, manifest)


def keep_sides(earlier: Split, manifest: Manifest) -> Split:
    """Return an earlier split of the same rows without the train and val rows that leak by what is known now.

    Its test side stays, row by row. Raises DataInvalid if a class has no image left on a side.
    """
    sides = _drop_leaking(earlier.sides, manifest.rows.group.to_numpy())
    _check_classes(sides, manifest)
    return _as_split(sides, manifest)


def find_leaks(manifest: Manifest) -> list[Leak]:
    """Find what the given split lets through: test in train, test in val, val in train; by patient and by pixels.

    Also by picture, which an altered copy shares with its original, where the deep audit has looked for copies.
    """
    rows = manifest.rows
    keys = {"patient": rows.patient_key.where(rows.patient_key != ""), "pixels": rows.pixel_hash}
    if "picture" in rows:
        keys["picture"] = rows.picture
    leaks = []
    for side, other in (("test", "train"), ("test", "val"), ("val", "train")):
        for by, values in keys.items():
            there = set(values[rows.given_split == other].dropna())
            leaking = (rows.given_split == side) & values.isin(there)
            if by == "picture":
                # What repeats the very pixels of an image of the other side is counted above.
                leaking &= ~rows.pixel_hash.isin(set(rows.pixel_hash[rows.given_split == other]))
            leaks.append(Leak(side, other, by, np.flatnonzero(leaking)))
    return leaks


def save_split(split: Split, manifest: Manifest, folder: Path) -> None:
    """Write the split as a table of image_id and side."""
    table = pd.DataFrame({"image_id": manifest.rows.image_id, "side": split.sides})
    table.attrs = {"manifest_fingerprint": split.manifest_fingerprint, "fingerprint": split.fingerprint}
    atomic_write(folder / "split.parquet", lambda file: table.to_parquet(file, index=False))


def find_conflicting(manifest: Manifest) -> np.ndarray:
    """Tell of each row whether the same pixels stand under another label too."""
    labels = manifest.rows.groupby("pixel_hash").label.transform("nunique")
    return (labels > 1).to_numpy()


def _as_split(sides: np.ndarray, manifest: Manifest) -> Split:
    return Split(sides, manifest.fingerprint, fingerprint([manifest.fingerprint, sides.tolist()]))


def _drop_leaking(sides: np.ndarray, groups: np.ndarray) -> np.ndarray:
    sides = sides.copy()
    test_groups = groups[sides == "test"]
    sides[(sides == "val") & np.isin(groups, test_groups)] = DROPPED
    kept_apart = groups[np.isin(sides, ["val", "test"])]
    sides[(sides == "train") & np.isin(groups, kept_apart)] = DROPPED
    return sides


def _carve_missing(sides: np.ndarray, manifest: Manifest, config: DatasetConfig) -> np.ndarray:
    """Deal groups of the train side to the sides that have no rows yet."""
    wanted = {"val": config.val_fraction, "test": config.test_fraction}
    missing = {side: fraction for side, fraction in wanted.items() if not (sides == side).any()}
    if sum(wanted.values()) >= 1:
        raise DataInvalid("dataset.val_fraction and dataset.test_fraction must leave something to train on.")
    if not missing:
        return sides
    # 15 % of all are 17.6 % of what is left when the test rows are already gone.
    present = sum(fraction for side, fraction in wanted.items() if side not in missing)
    shares = {side: fraction / (1 - present) for side, fraction in missing.items()}
    shares["train"] = 1 - sum(shares.values())
    return _deal(sides, manifest, shares, config.seed)


def _deal(sides: np.ndarray, manifest: Manifest, shares: dict[str, float], seed: int) -> np.ndarray:
    """Deal whole shuffled groups, class by class, each to the side that is furthest behind its share of the class."""
    sides = sides.copy()
    n_classes = len(manifest.classes)
    pool = manifest.rows.loc[sides == "train", ["group", "label"]]
    # A row a group, a column a class: how many images. A patient may have images of several classes.
    counts = pd.crosstab(pool.group, pool.label).reindex(columns=range(n_classes), fill_value=0)
    if pool.empty:
        raise _none_left(manifest)
    random = np.random.default_rng(seed)
    with_label = [random.permutation(counts.index[counts[label] > 0].to_numpy(copy=True)) for label in range(n_classes)]
    for label, groups in enumerate(with_label):
        if len(groups) < len(shares):
            raise _too_few(manifest.classes[label], len(groups), len(shares), manifest)
    images = dict(zip(counts.index, counts.to_numpy(), strict=True))
    members = pool.groupby("group").indices
    rows = np.flatnonzero(sides == "train")
    dealt = {side: np.zeros(n_classes) for side in shares}
    done: set[int] = set()
    # The rarest class first: it has the fewest groups to choose from (Sechidis 2011, iterative stratification).
    for label in sorted(range(n_classes), key=lambda label: len(with_label[label])):
        for group in with_label[label]:
            if group not in done:
                done.add(group)
                side = min(shares, key=lambda candidate: dealt[candidate][label] / shares[candidate])
                sides[rows[members[group]]] = side
                dealt[side] += images[group]
    return sides


def _check_classes(sides: np.ndarray, manifest: Manifest) -> None:
    labels = manifest.rows.label.to_numpy()
    for side in SPLITS:
        present = set(labels[sides == side])
        absent = [name for label, name in enumerate(manifest.classes) if label not in present]
        if absent:
            raise DataInvalid(
                f"Class {', '.join(absent)} has no image on the {side} side once leaking rows are dropped. "
                "Add images, or split anew with --on-leak regroup."
            )


def _too_few(name: str, found: int, needed: int, manifest: Manifest) -> DataInvalid:
    unit = "patients" if manifest.knows_patients else "distinct images"
    return DataInvalid(
        f"Class {name} has {found} {unit}; at least {needed} are needed, one for each side of the split. Add images."
    )


def _none_left(manifest: Manifest) -> DataInvalid:
    n, total = int(find_conflicting(manifest).sum()), len(manifest.rows)
    count = f"all {total:,}" if n == total else f"{n:,} of {total:,}"
    others = "" if n == total else "; the others are on other sides, or share a patient or a picture with one there"
    return DataInvalid(
        f"No image is left to train on: {count} images have the same pixels as one of another class{others}. "
        "Give each image one label, or add images."
    )


def count_classes(indices: Iterable[int], manifest: Manifest) -> dict[str, int]:
    """Count the images of each class among some rows."""
    labels = manifest.rows.label.to_numpy()[np.asarray(indices, dtype=int)]
    return {name: int((labels == label).sum()) for label, name in enumerate(manifest.classes)}
