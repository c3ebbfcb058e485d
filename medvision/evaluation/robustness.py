"""How the figures fall when images get worse."""

from __future__ import annotations

import numpy as np

from medvision.evaluation.paired import Draws, difference
from medvision.records import Corrupted

FIGURES = ("accuracy", "balanced_accuracy", "auroc")
SENSITIVITY = "sensitivity."


def choose_sample(y_true: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Return the positions of about ``n`` cases, sorted; of each class its share, and at least one."""
    if len(y_true) <= n:
        return np.arange(len(y_true))
    generator = np.random.default_rng(seed)
    chosen = []
    for c in np.unique(y_true):
        cases = np.flatnonzero(y_true == c)
        chosen.append(generator.permutation(cases)[: max(1, round(n * len(cases) / len(y_true)))])
    return np.sort(np.concatenate(chosen))


def select_figures(draws: Draws) -> dict[str, float]:
    """Return the values of the figures whose fall is told: overall, and the sensitivity of each class."""
    return {name: value for name, value in draws.values.items() if name in FIGURES or name.startswith(SENSITIVITY)}


def describe_fall(kind: str, severity: int, plain: Draws, corrupted: Draws) -> Corrupted:
    """Return the figures under one corruption, and by how much they fell: the paired bootstrap of the same cases."""
    values = select_figures(corrupted)
    return Corrupted(kind, severity, values, {name: difference(plain, corrupted, name) for name in values})
