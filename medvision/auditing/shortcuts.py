"""Classes that can be told from what is no medicine: format, size, colour and frame of a file, or a blur of 8x8 pixels.

For each trait a small classifier is fitted to it alone, out of fold and by group. What it finds, a network finds too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from medvision.auditing.folds import can_fold, out_of_fold
from medvision.auditing.traits import Traits
from medvision.records import Shortcut

# The only trait that medicine itself may explain: it is of what the image shows.
THUMBNAIL_TRAIT = "8x8 thumbnail"

# The lower bound must be a fifth of the way from guessing to certainty: less is of no use to a network.
_FAR = 0.2
_REPLICATES = 1000
_BLOCK = 50
_BLUR = 8


def measure_shortcuts(traits: Traits, labels: np.ndarray, groups: np.ndarray) -> tuple[Shortcut, ...]:
    """Measure what each trait tells of the classes; () where a class has too few groups for five folds.

    Parameters
    ----------
    labels: int (n,), 0 to n_classes - 1.
    groups: int (n,); images of one patient, or of the same pixels, share theirs.
    """
    if not can_fold(labels, groups):
        return ()
    return tuple(
        _measure(name, features, model, labels, groups)
        for name, features, model in _tries(traits)
        # What is the same for every image tells nothing.
        if (features != features[0]).any()
    )


def _tries(traits: Traits) -> Iterator[tuple[str, np.ndarray, Any]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=10, class_weight="balanced", random_state=0)
    formats = np.unique(traits.image_format)
    yield "file format", (traits.image_format[:, None] == formats).astype(float), tree
    yield "file size", np.log(traits.size_bytes[:, None].astype(float)), tree
    yield "image size", np.column_stack([traits.width, traits.height, traits.width / traits.height]), tree
    yield "colour channels", traits.channels[:, None].astype(float), tree
    yield "border", traits.borders.astype(float), tree
    n, side = traits.thumbnails.shape[:2]
    blurred = np.empty((n, _BLUR * _BLUR))
    for row, thumbnail in enumerate(traits.thumbnails):
        blurred[row] = thumbnail.reshape(_BLUR, side // _BLUR, _BLUR, side // _BLUR).mean(axis=(1, 3)).ravel()
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced"))
    yield THUMBNAIL_TRAIT, blurred, linear


def _measure(name: str, features: np.ndarray, model: Any, labels: np.ndarray, groups: np.ndarray) -> Shortcut:
    right = out_of_fold(model, features, labels, groups).argmax(axis=1) == labels
    accuracy, low, high = _interval(right, labels, groups)
    chance = 1 / len(np.unique(labels))
    return Shortcut(name, accuracy, low, high, chance, low >= chance + _FAR * (1 - chance))


def _interval(right: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Return a balanced accuracy and its 95 % percentile interval; whole groups are drawn, with replacement."""
    of_group = np.unique(groups, return_inverse=True)[1]
    n_groups, k = of_group.max() + 1, labels.max() + 1
    n_right, n = np.zeros((n_groups, k)), np.zeros((n_groups, k))
    np.add.at(n, (of_group, labels), 1)
    np.add.at(n_right, (of_group, labels), right)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(0, _REPLICATES, _BLOCK):
        # How often each group is drawn is Poisson(1), nearly: the sum of draws need not be exact here.
        times = random.poisson(1, (_BLOCK, n_groups)).astype(float)
        drawn.append(np.nanmean((times @ n_right) / np.where(times @ n > 0, times @ n, np.nan), axis=1))
    low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
    value = np.mean(n_right.sum(axis=0) / n.sum(axis=0))
    return float(value), float(low), float(high)
