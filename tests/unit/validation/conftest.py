"""Evaluations with known counts."""

import numpy as np
import pytest

from medvision.evaluation.metrics import evaluate_predictions

CLASSES = ("glioma", "meningioma", "pituitary")


def evaluation_with(found=(90, 90, 90), n=100, digest="a" * 64, split="b" * 64):
    """Return an Evaluation with ``found`` of ``n`` cases of each class right; the rest go to the next class."""
    y_true = np.repeat(np.arange(3), n)
    y_pred = np.concatenate([np.where(np.arange(n) < found[c], c, (c + 1) % 3) for c in range(3)])
    return evaluate_predictions(
        y_true=y_true,
        y_score=np.eye(3)[y_pred],
        classes=CLASSES,
        model="resnet18",
        dataset="phantom",
        package_digest=digest,
        split_fingerprint=split,
        predictions_sha256="c" * 64,
        n_patients=None,
    )


@pytest.fixture(name="evaluation_with")
def evaluation_with_fixture():
    return evaluation_with
