"""Predictions with known properties, and the Evaluation that is made of them."""

import numpy as np
import pytest

from medvision.evaluation.metrics import evaluate_predictions

CLASSES = ("glioma", "meningioma", "pituitary")


def predictions(n=300, k=3, seed=0):
    """Return y_true (n,) with every class in it and y_score (n, k) that is right more often than not."""
    rng = np.random.default_rng(seed)
    y_true = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[y_true]
    y_score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return y_true, y_score.astype(np.float32)


def evaluate(y_true, y_score, classes=CLASSES, n_patients=None):
    """Return the Evaluation of predictions under made-up fingerprints."""
    return evaluate_predictions(
        y_true=y_true,
        y_score=y_score,
        classes=classes,
        model="resnet18",
        dataset="phantom",
        package_digest="a" * 64,
        split_fingerprint="b" * 64,
        predictions_sha256="c" * 64,
        n_patients=n_patients,
    )


@pytest.fixture(name="predictions")
def predictions_fixture():
    return predictions


@pytest.fixture(name="evaluate")
def evaluate_fixture():
    return evaluate


@pytest.fixture
def evaluation():
    return evaluate(*predictions(), n_patients=100)
