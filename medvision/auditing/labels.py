"""Images that are likely to have a wrong label: those that a classifier is sure are of another class.

Confident learning (Northcutt, Jiang and Chuang, JAIR 2021) on the probabilities of a logistic regression on embeddings,
out of fold, so that no image speaks for its own label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvision.auditing.folds import balanced_accuracy, can_fold, out_of_fold

# A classifier that is wrong more often says more of itself than of the labels.
_BELIEVED = 0.8
# How much surer of another class than of the given one.
_MARGIN = 0.8


@dataclass(frozen=True)
class LabelDoubts:
    """Row numbers of doubtful labels, the most doubtful first, with the class that each looks like.

    ``accuracy``: the balanced accuracy of the classifier, out of fold.
    """

    rows: np.ndarray
    looks_like: np.ndarray
    accuracy: float


def find_label_doubts(points: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> LabelDoubts | None:
    """Find likely label errors; None where the classifier is not good enough to be believed, or classes are too small.

    Parameters
    ----------
    points: float (n, d), the embeddings.
    labels: int (n,), 0 to n_classes - 1.
    groups: int (n,); images of one patient, or of the same pixels, share theirs.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not can_fold(labels, groups):
        return None
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    probabilities = out_of_fold(classifier, points, labels, groups)
    accuracy = balanced_accuracy(labels, probabilities.argmax(axis=1))
    if accuracy < _BELIEVED:
        return None
    rows, looks_like = confident_errors(probabilities, labels)
    return LabelDoubts(rows, looks_like, accuracy)


def confident_errors(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows whose probability of another class reaches what images of that class have on average.

    Ranked by how much it exceeds that of the given class, which must be by 0.8 at least; with the other class of each.
    """
    k = probabilities.shape[1]
    thresholds = np.array([probabilities[labels == c, c].mean() if (labels == c).any() else 2.0 for c in range(k)])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    looks_like = confident.argmax(axis=1)
    every = np.arange(len(labels))
    margins = probabilities[every, looks_like] - probabilities[every, labels]
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (looks_like != labels) & (margins >= _MARGIN))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    return rows, looks_like[rows]
