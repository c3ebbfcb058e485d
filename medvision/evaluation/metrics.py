"""From predictions to an Evaluation: each figure of classification, with its interval where it is a proportion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvision.errors import DataInvalid
from medvision.evaluation.intervals import wilson
from medvision.records import ClassFigures, Evaluation

# Probabilities are float32 sums over classes; half precision on a GPU costs three digits.
SUM_TOLERANCE = 1e-3


def evaluate_predictions(
    *,
    y_true: np.ndarray,
    y_score: np.ndarray,
    classes: Sequence[str],
    model: str,
    dataset: str,
    package_digest: str,
    split_fingerprint: str,
    predictions_sha256: str,
    n_patients: int | None,
) -> Evaluation:
    """Compute every figure of one model package on one test split.

    Parameters
    ----------
    y_true: (n,) class indices; every class has a case.
    y_score: (n, k) probabilities in [0, 1], rows sum to 1. The prediction is the class of the highest one.
    classes: k names, at least two. AUROC is the macro mean of one-vs-rest; of two classes, that of the second.
    n_patients: None where patients are unknown.

    Raises
    ------
    DataInvalid: shapes, labels or scores are not as above.
    """
    y_true, y_score = check_predictions(y_true, y_score, classes)
    confusion = confusion_matrix(y_true, y_score.argmax(axis=1), len(classes))
    per_class = tuple(_class_figures(c, name, confusion, y_true, y_score) for c, name in enumerate(classes))
    aurocs = [figures.auroc for figures in per_class if figures.auroc is not None]
    return Evaluation(
        model=model,
        dataset=dataset,
        package_digest=package_digest,
        split_fingerprint=split_fingerprint,
        predictions_sha256=predictions_sha256,
        classes=tuple(classes),
        n=len(y_true),
        n_patients=n_patients,
        accuracy=wilson(int(np.trace(confusion)), len(y_true)),
        balanced_accuracy=float(np.mean([figures.sensitivity.value for figures in per_class])),
        auroc=aurocs[1] if len(classes) == 2 else float(np.mean(aurocs)),
        per_class=per_class,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def check_predictions(y_true: np.ndarray, y_score: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores as int64 and float64 arrays; DataInvalid says what is wrong with them."""
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    k = len(classes)
    if k < 2:
        raise DataInvalid(f"An evaluation needs at least 2 classes, found {k}. Check the package's list of classes.")
    if y_true.ndim != 1 or y_score.shape != (len(y_true), k) or len(y_true) == 0:
        raise DataInvalid(
            f"Expected y_true (n,) and y_score (n, {k}) with n >= 1, found {y_true.shape} and {y_score.shape}. "
            "Score the test split again with the package that these classes belong to."
        )
    _check_scores(y_score)
    return _check_labels(y_true, classes), y_score


def confusion_matrix(y_true: np.ndarray, y_pred: np.ndarray, k: int) -> np.ndarray:
    """Count cases, (k, k): rows are the truth, columns the prediction."""
    return np.bincount(y_true * k + y_pred, minlength=k * k).reshape(k, k)


def _check_scores(y_score: np.ndarray) -> None:
    if not np.isfinite(y_score).all():
        bad = int((~np.isfinite(y_score)).any(axis=1).sum())
        raise DataInvalid(
            f"Expected finite probabilities, found NaN or infinity in {bad} of {len(y_score)} rows. "
            "The weights or the normalization are damaged: train again, or run evaluate with another checkpoint."
        )
    sums = y_score.sum(axis=1)
    if y_score.min() < 0 or np.abs(sums - 1).max() > SUM_TOLERANCE:
        raise DataInvalid(
            f"Expected probabilities in [0, 1] whose rows sum to 1, found values from {y_score.min():.4g} and sums "
            f"from {sums.min():.4g} to {sums.max():.4g}. Apply softmax to logits before they are evaluated."
        )


def _check_labels(y_true: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    if y_true.dtype.kind not in "iu" or y_true.min() < 0 or y_true.max() >= len(classes):
        raise DataInvalid(
            f"Expected integer labels from 0 to {len(classes) - 1}, found {y_true.dtype} from {y_true.min()} to "
            f"{y_true.max()}. The split and the package must list the same classes: run normalize and train again."
        )
    counts = np.bincount(y_true, minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if absent:
        raise DataInvalid(
            f"Expected test cases of every class, found none of {', '.join(absent)}: their sensitivity has no value. "
            "Add images of them and split again."
        )
    return y_true.astype(np.int64)


def _class_figures(c: int, name: str, confusion: np.ndarray, y_true: np.ndarray, y_score: np.ndarray) -> ClassFigures:
    from sklearn.metrics import roc_auc_score

    n, positives = int(confusion.sum()), int(confusion[c].sum())
    hits = int(confusion[c, c])
    false_alarms = int(confusion[:, c].sum()) - hits
    return ClassFigures(
        name=name,
        n=positives,
        sensitivity=wilson(hits, positives),
        specificity=wilson(n - positives - false_alarms, n - positives),
        auroc=float(roc_auc_score(y_true == c, y_score[:, c])),
    )
