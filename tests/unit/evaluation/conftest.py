"""Predictions with known properties, and the Evaluation that is made of them."""

import numpy as np
import pytest

from medvision.evaluation.metrics import evaluate_predictions
from medvision.evaluation.predictions import Predictions
from medvision.records import Plan

PLAN = Plan(replicates=200)
CLASSES = ("glioma", "meningioma", "pituitary")


def predictions(n=300, k=3, seed=0):
    """Return y_true (n,) with every class in it and y_score (n, k) that is right more often than not."""
    rng = np.random.default_rng(seed)
    y_true = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[y_true]
    y_score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return y_true, y_score.astype(np.float32)


def as_predictions(y_true, y_score, classes=CLASSES, groups=None):
    """Return Predictions as they are loaded, in float64, of patients with these codes; None: unknown."""
    n = len(y_true)
    keys = [None] * n if groups is None else [None if group is None else f"patient{group}" for group in groups]
    return Predictions(tuple(f"image{i}" for i in range(n)), tuple(keys), y_true, np.float64(y_score), tuple(classes))


def evaluate(y_true, y_score, classes=CLASSES, groups=None, plan=PLAN):
    """Return the Evaluation of predictions under made-up fingerprints."""
    return evaluate_predictions(
        as_predictions(y_true, y_score, classes, groups),
        model="resnet18",
        dataset="phantom",
        package_digest="a" * 64,
        split_fingerprint="b" * 64,
        predictions_sha256="c" * 64,
        plan=plan,
    )


def simulate_pair(rng, m, size, gain=0.0, groups=True):
    """Return the predictions of two models on ``size`` images of each of ``m`` patients, of two classes.

    Images of a patient are alike, for both models and for each of them; the first model is better by ``gain``.
    """
    patients = np.repeat(np.arange(m), size)
    y_true = rng.permutation(np.arange(m) % 2)[patients]
    shared = rng.normal(0, 0.7, m)[patients]
    found = []
    for shift in (1 + gain, 1.0):
        noise = rng.normal(0, 0.7, m)[patients] + rng.normal(0, 0.7, len(patients))
        score = 1 / (1 + np.exp(-2 * ((2 * y_true - 1) * (shift + shared) + noise)))
        found.append(
            as_predictions(y_true, np.stack([1 - score, score], axis=1), ("no", "yes"), patients if groups else None)
        )
    return tuple(found)


@pytest.fixture(name="simulate_pair")
def simulate_pair_fixture():
    return simulate_pair


@pytest.fixture(name="predictions")
def predictions_fixture():
    return predictions


@pytest.fixture(name="as_predictions")
def as_predictions_fixture():
    return as_predictions


@pytest.fixture(name="evaluate")
def evaluate_fixture():
    return evaluate


@pytest.fixture
def evaluation():
    return evaluate(*predictions(), groups=np.arange(300) // 3)
