"""What the folds of a cross-validation say together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvision.evaluation.bootstrap import point_values
from medvision.evaluation.metrics import evaluate_predictions
from medvision.evaluation.predictions import Predictions, concatenate
from medvision.records import CrossValidation, FoldFigures, Plan

FIGURES = ("accuracy", "balanced_accuracy", "auroc")


def describe_fold(tested: Predictions, n_train: int, n_val: int, best_epoch: int) -> FoldFigures:
    """Return the figures of one fold on the images that it was tested on."""
    values = point_values(tested)
    return FoldFigures(n_train, n_val, len(tested.y_true), best_epoch, **{name: values[name] for name in FIGURES})


def summarize(
    model: str,
    dataset: str,
    split_fingerprint: str,
    tested: Sequence[Predictions],
    folds: Sequence[FoldFigures],
    plan: Plan,
) -> CrossValidation:
    """Return mean and standard deviation over the folds, and the figures of all tested images pooled.

    The standard deviation is that between folds (n - 1). It is no standard error: the folds share training images
    (Bengio and Grandvalet, JMLR 2004); the pooled figures carry the intervals.
    """
    pooled = concatenate(tested)
    columns = {name: np.array([getattr(fold, name) for fold in folds]) for name in FIGURES}
    return CrossValidation(
        folds=tuple(folds),
        means={name: float(values.mean()) for name, values in columns.items()},
        deviations={name: float(values.std(ddof=1)) for name, values in columns.items()},
        pooled=evaluate_predictions(
            pooled,
            model=model,
            dataset=dataset,
            # Of as many packages as folds, none of which is kept.
            package_digest="",
            split_fingerprint=split_fingerprint,
            predictions_sha256="",
            plan=plan,
        ),
    )
