"""What a classifier says of images that it was not fitted on: probabilities out of five folds, by group."""

from __future__ import annotations

from typing import Any

import numpy as np

FOLDS = 5


def can_fold(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Tell whether each class has groups enough for every fold to hold some, twice over."""
    return (
        len(np.unique(labels)) > 1
        and min(len(np.unique(groups[labels == label])) for label in np.unique(labels)) >= 2 * FOLDS
    )


def out_of_fold(model: Any, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, n_classes) that a scikit-learn classifier gives the images of the fold left out.

    No group, that is no patient and no repeat, is on both sides. ``labels`` are 0 to n_classes - 1.
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedGroupKFold

    probabilities = np.zeros((len(labels), labels.max() + 1))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fitted_on, left_out in folds.split(features, labels, groups):
        fitted = clone(model).fit(features[fitted_on], labels[fitted_on])
        probabilities[np.ix_(left_out, fitted.classes_)] = fitted.predict_proba(features[left_out])
    return probabilities


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over classes of the share of their images that is predicted right."""
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))
