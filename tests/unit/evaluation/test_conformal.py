"""Prediction sets: the promise by simulation, the quantile against MAPIE and by hand."""

import math

import numpy as np
import pytest

from medvision.errors import DataInvalid
from medvision.evaluation.conformal import conformal_figures, fit_conformal, prediction_sets
from medvision.records import Conformal


def draw(rng, n_patients, icc=0.0, images=1, k=2):
    """Return labels, scores and patients; scores of a patient's images share ``icc`` of their variance.

    ``images`` is the mean number a patient, and varies between patients when it is above 1; those of many images are
    harder, so that images and patients do not weigh the same.
    """
    counts = (
        1 + rng.poisson(images - 1, n_patients) * rng.integers(0, 3, n_patients) if images > 1 else np.ones(n_patients)
    )
    groups = np.repeat(np.arange(n_patients), counts.astype(int))
    y_true = rng.integers(0, k, n_patients)[groups]
    effect = (np.sqrt(icc) * rng.normal(size=n_patients) - 0.2 * (counts > 3))[groups]
    margin = 1 + 1.5 * (effect + np.sqrt(1 - icc) * rng.normal(size=len(groups)))
    of_truth = 1 / (1 + np.exp(-margin))
    y_score = np.repeat(((1 - of_truth) / (k - 1))[:, None], k, axis=1)
    y_score[np.arange(len(groups)), y_true] = of_truth
    return y_true, y_score, groups


def mean_coverage(rng, repeats, coverage, kind):
    """Return per class the mean coverage of a random image of a random new patient, and its standard error."""
    y_new, score_new, groups_new = draw(rng, **{**kind, "n_patients": 20_000})
    _, images = np.unique(groups_new, return_counts=True)
    weight = 1 / images[groups_new]
    found = []
    for _ in range(repeats):
        y_true, y_score, groups = draw(rng, **kind)
        held = prediction_sets(score_new, fit_conformal(y_true, y_score, groups, coverage))
        found.append([np.average(held[y_new == c, c], weights=weight[y_new == c]) for c in range(2)])
    return np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(repeats)


@pytest.mark.parametrize(
    "kind",
    [
        {"n_patients": 120},
        {"n_patients": 120, "images": 5, "icc": 0.3},
        {"n_patients": 120, "images": 5, "icc": 0.9},
    ],
    ids=["independent", "alike", "all but the same"],
)
def test_coverage_of_each_class(kind):
    """Averaged over val splits, sets hold each true class as often as promised, and hardly more often."""
    mean, error = mean_coverage(np.random.default_rng(1), 200, 0.9, kind)
    assert np.all(mean > 0.9 - 3 * error - 0.005)
    # Of m patients the excess is at most 2 / (m + 1) (Lee, Barber and Willett 2023): 60 patients a class.
    assert np.all(mean < 0.9 + 2 / 61 + 3 * error + 0.005)


@pytest.mark.slow
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n_patients", [60, 150])
@pytest.mark.parametrize(("images", "icc"), [(1, 0.0), (4, 0.0), (4, 0.5), (12, 0.5), (12, 0.95)])
def test_coverage_of_each_class_widely(coverage, n_patients, images, icc):
    """The promise holds for few and many patients, images and coverages."""
    kind = {"n_patients": n_patients, "images": images, "icc": icc}
    mean, error = mean_coverage(np.random.default_rng(2), 1500, coverage, kind)
    assert np.all(mean > coverage - 3 * error - 0.004)


def test_patients_are_needed_for_the_promise():
    """Where patients of few images are the hard ones, the promise to them is kept by patients and broken by images."""
    rng = np.random.default_rng(3)
    hard, easy = rng.uniform(0, 0.5, 100), rng.uniform(0.5, 1, 100)
    score = np.r_[hard, np.repeat(easy, 20)]
    y_score = np.stack([score, 1 - score], axis=1)
    y_true, groups = np.zeros(2100, dtype=int), np.r_[np.arange(100), np.repeat(np.arange(100, 200), 20)]
    by_patient, by_image = (fit_conformal(y_true, y_score, each, 0.9) for each in (groups, np.arange(2100)))
    assert (by_patient.n_calibration, by_image.n_calibration) == ((200, 0), (2100, 0))
    # Of a new patient, of either kind as often, who is uniform on (0, 1) the coverage is 1 - threshold.
    assert by_patient.thresholds[0] == pytest.approx(0.1, abs=0.04)
    assert by_image.thresholds[0] > 0.5


@pytest.mark.parametrize("n", [9, 10, 19, 20, 137])
@pytest.mark.parametrize("coverage", [0.9, 0.8, 0.55])
def test_is_the_finite_sample_quantile(n, coverage):
    """Without patients, 1 - threshold is the ceil((n + 1) (1 - alpha)) / n quantile of 1 - score."""
    score = np.random.default_rng(n).random(n)
    found = fit_conformal(np.zeros(n, dtype=int), np.stack([score, 1 - score], axis=1), np.arange(n), coverage)
    rank = math.ceil(round((n + 1) * coverage, 9))
    assert 1 - found.thresholds[0] == pytest.approx(np.sort(1 - score)[rank - 1])


def test_agrees_with_mapie():
    """On the cases of one class, and on test, the sets are those of MAPIE's split LAC."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Returns the scores that it is given."""

        def __init__(self):
            self.classes_ = np.arange(3)
            self.fitted_ = True

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(axis=1)

    rng = np.random.default_rng(0)
    y_true, y_score, _ = draw(rng, 400, k=3)
    # MAPIE takes sums of probabilities to be 1 to the last digits.
    test = rng.dirichlet([1, 1, 1], 500)
    ours = prediction_sets(test, fit_conformal(y_true, y_score, np.arange(len(y_true)), 0.9))
    for c in range(3):
        mapie = SplitConformalClassifier(Given(), confidence_level=0.9, conformity_score="lac", prefit=True)
        with pytest.warns(UserWarning, match="less labels"):
            mapie.conformalize(y_score[y_true == c], y_true[y_true == c])
        _, sets = mapie.predict_set(test)
        assert np.array_equal(sets[:, c, 0], ours[:, c])


def test_too_few_cases_put_the_class_in_every_set():
    """With fewer than 1 / alpha - 1 patients of a class its threshold is 0, with as many their lowest score."""
    score = np.linspace(0.2, 0.9, 9)
    y_score = np.stack([score, 1 - score], axis=1)
    assert fit_conformal(np.zeros(9, dtype=int), y_score, np.arange(9), 0.9).thresholds == (pytest.approx(0.2), 0.0)
    few = fit_conformal(np.zeros(8, dtype=int), y_score[:8], np.arange(8), 0.9)
    assert (few.thresholds, few.n_calibration) == ((0.0, 0.0), (8, 0))
    assert prediction_sets(np.array([[0.0, 1.0]]), few).all()


def test_weighs_patients_by_hand():
    """Of three patients with 1, 1 and 2 images, one patient's weight may lie below the threshold of 50 %."""
    y_score = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]])
    groups = np.array([5, 7, 9, 9])
    # alpha (m + 1) = 2 patients: the new one, and one more. Below 0.6 lie 1/2 + 1; below 0.3 lies 1/2.
    assert fit_conformal(np.zeros(4, dtype=int), y_score, groups, 0.5).thresholds[0] == np.float32(0.3)


def test_copies_of_images_change_nothing():
    """A patient whose images are all there twice counts as before."""
    y_true, y_score, groups = draw(np.random.default_rng(4), 80, images=3, icc=0.5)
    twice = np.concatenate([np.arange(len(groups)), np.flatnonzero(groups == groups[0])])
    assert fit_conformal(y_true[twice], y_score[twice], groups[twice], 0.9) == fit_conformal(
        y_true, y_score, groups, 0.9
    )


def test_one_image_each_is_as_without_patients():
    """Where every patient has one image, knowing them changes nothing."""
    y_true, y_score, groups = draw(np.random.default_rng(5), 90)
    assert fit_conformal(y_true, y_score, groups, 0.9) == fit_conformal(y_true, y_score, np.arange(len(y_true)), 0.9)


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0])
def test_refuses_an_impossible_coverage(coverage):
    """A coverage outside of (0, 1) is an error."""
    with pytest.raises(DataInvalid, match="coverage"):
        fit_conformal(np.array([0, 1]), np.eye(2), np.arange(2), coverage)


def test_figures_by_hand():
    """Coverage of each class, mean size and the shares of sets of no, one and more classes are counted on test."""
    conformal = Conformal(0.9, (0.5, 0.4, 0.3), (30, 30, 30))
    y_score = np.array([[0.5, 0.4, 0.1], [0.45, 0.35, 0.2], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
    figures = conformal_figures(conformal, np.array([0, 0, 2, 2]), y_score, None)
    assert [figure.value for figure in figures.per_class] == [0.5, None, 0.5]
    assert [figure.n for figure in figures.per_class] == [2, 0, 2]
    assert figures.mean_set_size == 1.0
    assert (figures.empty.successes, figures.single.successes, figures.several.successes) == (1, 2, 1)
