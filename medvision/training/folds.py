"""The folds of a cross-validation: by patient, stratified, and each with a val of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvision.errors import DataInvalid

_FEWEST = 3
_SHUFFLES = 20


@dataclass(frozen=True)
class Fold:
    """Row numbers of one fold: what it is trained on, what its best epoch is chosen on, what it is tested on."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def make_folds(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, classes: Sequence[str], folds: int, seed: int
) -> tuple[Fold, ...]:
    """Part rows into folds; each is tested once, and the one before it is that fold's val.

    Parameters
    ----------
    rows: row numbers (n,). labels, groups: of each of these rows, (n,); a group is never parted.
    classes: the names of the labels. folds: at least 3.

    Raises DataInvalid where a class has fewer groups than there are folds, or some part gets none of its images.
    """
    for label in np.unique(labels):
        found = len(np.unique(groups[labels == label]))
        if found < folds:
            fewer = f"Use --set evaluation.folds={found}, or add images." if found >= _FEWEST else "Add images of it."
            raise DataInvalid(
                f"A cross-validation of {folds} folds needs as many patients, or groups of equal images, of each "
                f"class; {classes[label]} has {found}. {fewer}"
            )
    parts = part_by_group(labels, groups, parts=folds, seed=seed)
    if parts is None:
        raise DataInvalid(
            f"No way was found to part these patients into {folds} folds that each have every class. "
            f"Use fewer, at least {_FEWEST}: --set evaluation.folds={_FEWEST}; or add images."
        )
    return tuple(_fold([np.sort(rows[part]) for part in parts], number) for number in range(folds))


def part_by_group(labels: np.ndarray, groups: np.ndarray, *, parts: int, seed: int) -> list[np.ndarray] | None:
    """Return the positions of each of some stratified parts, every class in each, no group in two; None if none is.

    A class needs as many groups as there are parts.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    for attempt in range(_SHUFFLES):
        splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed + attempt)
        found = [positions for _, positions in splitter.split(labels, labels, groups)]
        # Where patients have images of several classes, a part can be left without one of them.
        if all(len(np.unique(labels[part])) == len(np.unique(labels)) for part in found):
            return found
    return None


def _fold(parts: list[np.ndarray], number: int) -> Fold:
    val = (number - 1) % len(parts)
    train = [part for i, part in enumerate(parts) if i not in (number, val)]
    return Fold(train=np.sort(np.concatenate(train)), val=parts[val], test=parts[number])
