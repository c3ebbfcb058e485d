"""Answering where the model is sure: curves by brute force, the promise on the risk by simulation."""

import numpy as np
import pytest

from medvision.evaluation.conformal import prediction_sets
from medvision.evaluation.selective import abstain_by_sets, risk_coverage, select_at_coverage
from medvision.records import Conformal


def with_confidence(confidence, is_right):
    """Return labels and scores of two classes with these confidences, in [0.5, 1], and these errors."""
    confidence = np.asarray(confidence)
    return np.where(is_right, 0, 1), np.stack([confidence, 1 - confidence], axis=1)


def test_curve_by_brute_force():
    """At each confidence the curve has the share of cases at or above it, and the share of errors among them."""
    rng = np.random.default_rng(0)
    confidence, is_right = rng.integers(50, 101, 200) / 100, rng.random(200) < 0.8
    curve = risk_coverage(*with_confidence(confidence, is_right))
    for threshold, coverage, risk in zip(curve.threshold, curve.coverage, curve.risk, strict=True):
        answered = confidence >= threshold
        assert (coverage, risk) == (pytest.approx(answered.mean()), pytest.approx(np.mean(~is_right[answered])))
    assert np.all(np.diff(curve.threshold) < 0)


def test_area_is_the_mean_risk_over_the_cases():
    """AURC is the mean over the cases of the risk at each one's own confidence, in any order of the cases."""
    rng = np.random.default_rng(1)
    confidence, is_right = rng.integers(50, 101, 90) / 100, rng.random(90) < 0.7
    curve = risk_coverage(*with_confidence(confidence, is_right))
    assert curve.aurc == pytest.approx(np.mean([np.mean(~is_right[confidence >= own]) for own in confidence]))
    order = rng.permutation(90)
    assert risk_coverage(*with_confidence(confidence[order], is_right[order])).aurc == pytest.approx(curve.aurc)


def test_excess_area_of_a_perfect_order_is_none():
    """Where every error is less sure than every right answer nothing is left to spare."""
    curve = risk_coverage(*with_confidence(np.linspace(1, 0.5, 50), np.arange(50) < 40))
    assert curve.excess_aurc == pytest.approx(0)
    assert curve.aurc == pytest.approx(np.mean([0] * 40 + [i / (40 + i) for i in range(1, 11)]))


def test_area_of_confidence_that_tells_nothing_is_the_error_rate():
    """Where all cases are equally sure AURC is the share of errors."""
    assert risk_coverage(*with_confidence(np.full(20, 0.8), np.arange(20) < 15)).aurc == pytest.approx(0.25)


def test_selection_at_a_coverage_by_hand():
    """The most confident half of ten cases is five, of which one is wrong; ties are answered together."""
    confidence = np.array([0.99, 0.98, 0.97, 0.96, 0.9, 0.9, 0.8, 0.7, 0.6, 0.55])
    y_true, y_score = with_confidence(confidence, np.arange(10) != 2)
    found = select_at_coverage(y_true, y_score, None, 0.4)
    assert (found.threshold, found.coverage.value, found.accuracy.value) == (0.96, 0.4, 0.75)
    assert select_at_coverage(y_true, y_score, None, 0.5).coverage.successes == 6
    assert select_at_coverage(y_true, y_score, None, 1.0).accuracy.value == 0.9


def test_abstention_by_hand():
    """Sets of no class and of two abstain; accuracy and abstention are counted of all, and of each true class."""
    y_score = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.3, 0.3], [0.1, 0.9]])
    sets = prediction_sets(y_score, Conformal(0.9, (0.4, 0.4), (30, 30)))
    found = abstain_by_sets(np.array([0, 0, 0, 1, 1]), sets, None)
    assert (found.abstained.successes, found.abstained.n) == (2, 5)
    assert (found.accuracy.successes, found.accuracy.n) == (2, 3)
    assert [figure.value for figure in found.abstained_per_class] == [pytest.approx(1 / 3), 0.5]
    assert [(figure.successes, figure.n) for figure in found.accuracy_per_class] == [(1, 2), (1, 1)]


def test_abstention_from_everything_has_no_accuracy():
    """Where no set holds one class all is abstained from, and accuracy is not defined."""
    found = abstain_by_sets(np.array([0, 1]), np.ones((2, 2), dtype=bool), None)
    assert found.abstained.value == 1.0
    assert found.accuracy.value is None
