"""What folds say together: mean, spread, and the pooled figures."""

import statistics

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from medvision.evaluation.cross_validation import FIGURES, describe_fold, summarize
from medvision.evaluation.predictions import concatenate, select
from medvision.records import CrossValidation, Plan, load_record, save_record

PLAN = Plan(200)


@pytest.fixture
def tested(predictions, as_predictions):
    """Predictions of five folds of 60 images of 20 patients each."""
    cases = as_predictions(*predictions(), groups=np.arange(300) // 3)
    return [select(cases, np.arange(300) // 60 == fold) for fold in range(5)]


@pytest.fixture
def found(tested):
    folds = [describe_fold(each, 180, 60, best_epoch=number) for number, each in enumerate(tested)]
    return summarize("resnet18", "phantom", "f" * 64, tested, folds, PLAN)


def test_a_fold_has_the_figures_of_its_images(tested):
    """Figures are scikit-learn's on the images that the fold was tested on, and its images are counted."""
    fold, one = describe_fold(tested[0], 180, 61, best_epoch=7), tested[0]
    assert (fold.n_train, fold.n_val, fold.n_test, fold.best_epoch) == (180, 61, 60, 7)
    assert fold.accuracy == pytest.approx(accuracy_score(one.y_true, one.y_pred))
    assert fold.balanced_accuracy == pytest.approx(balanced_accuracy_score(one.y_true, one.y_pred))
    assert fold.auroc == pytest.approx(roc_auc_score(one.y_true, one.y_score, multi_class="ovr"), abs=1e-6)


def test_mean_and_spread_are_those_of_the_folds(found):
    """Mean and standard deviation (n - 1) over the folds."""
    for name in FIGURES:
        values = [getattr(fold, name) for fold in found.folds]
        assert found.means[name] == pytest.approx(statistics.mean(values))
        assert found.deviations[name] == pytest.approx(statistics.stdev(values))


def test_pooled_figures_are_those_of_all_images(found, tested, evaluate):
    """All tested images together are evaluated once, by patient."""
    pooled = concatenate(tested)
    expected = evaluate(pooled.y_true, pooled.y_score, groups=np.arange(300) // 3)
    assert (found.pooled.overall, found.pooled.per_class) == (expected.overall, expected.per_class)
    assert (found.pooled.n, found.pooled.n_patients) == (300, 100)


def test_says_what_it_is_of(found):
    """The pooled evaluation names model, dataset, split and plan, and no package, since none is kept."""
    pooled = found.pooled
    assert (pooled.model, pooled.dataset, pooled.split_fingerprint) == ("resnet18", "phantom", "f" * 64)
    assert (pooled.package_digest, pooled.plan) == ("", PLAN)


def test_survives_json(found, tmp_path):
    """A cross-validation is the same after it was saved and loaded."""
    save_record(found, tmp_path / "cross_validation.json")
    assert load_record(CrossValidation, tmp_path / "cross_validation.json") == found
