"""The decision curve, against its formula, scikit-learn, and simulation of the band."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from medvision.evaluation.decision_curve import THRESHOLDS, decision_curve
from medvision.records import Plan

FEW = Plan(replicates=200, seed=1)


def draw(seed, n, prevalence=0.3):
    """Return truth and calibrated scores."""
    rng = np.random.default_rng(seed)
    score = rng.beta(4 * prevalence, 4 * (1 - prevalence), n)
    return rng.random(n) < score, score


def test_is_the_formula():
    """At each threshold it is TP / n - FP / n * pt / (1 - pt), with the counts that scikit-learn finds."""
    is_class, score = draw(0, 300)
    score = np.round(score, 2)
    curve = decision_curve("glioma", is_class, score, np.arange(len(score)), FEW)
    for pt, found in zip(curve.thresholds, curve.net_benefit, strict=True):
        (_, fp), (_, tp) = confusion_matrix(is_class, score >= pt, labels=[False, True])
        assert found == pytest.approx(tp / 300 - fp / 300 * pt / (1 - pt))


def test_thresholds_are_those_of_the_percents():
    """The curve runs from 0.01 to 0.99 in hundredths."""
    curve = decision_curve("glioma", *draw(0, 50), np.arange(50), FEW)
    assert curve.thresholds == pytest.approx(np.linspace(0.01, 0.99, 99))


def test_treating_all_is_calling_every_case():
    """A model that is sure of every case has the net benefit of treating all, which is 0 at the prevalence."""
    is_class = np.arange(100) < 25
    curve = decision_curve("glioma", is_class, np.ones(100), np.arange(100), FEW)
    assert curve.net_benefit == pytest.approx(curve.treat_all)
    assert curve.treat_all[24] == pytest.approx(0)


def test_a_faultless_model_gains_the_prevalence():
    """Every case found and nobody else: the net benefit is the prevalence at every threshold, and certain."""
    is_class = np.arange(100) < 25
    curve = decision_curve("glioma", is_class, is_class.astype(float), np.arange(100), FEW)
    assert curve.net_benefit == curve.low == curve.high == pytest.approx([0.25] * 99)


def test_the_band_is_that_of_patients():
    """Five copies of every image, as of one patient, change neither curve nor band."""
    is_class, score = draw(2, 120)
    plain = decision_curve("glioma", is_class, score, np.arange(len(score)), FEW)
    copied = decision_curve(
        "glioma", np.repeat(is_class, 5), np.repeat(score, 5), np.repeat(np.arange(120) * 7, 5), FEW
    )
    for name in ("net_benefit", "low", "high", "treat_all"):
        assert getattr(copied, name) == pytest.approx(getattr(plain, name))


def test_the_same_plan_gives_the_same_band():
    """Seed and replicates decide the band, and another seed gives another."""
    cases = *draw(3, 80), np.arange(80)
    assert decision_curve("a", *cases, FEW) == decision_curve("a", *cases, FEW)
    assert decision_curve("a", *cases, FEW) != decision_curve("a", *cases, Plan(200, seed=2))


def test_coverage_of_the_band():
    """At the thresholds where decisions are made the band holds the true net benefit in about 95 % of samples.

    Draws keep the number of cases of the class, so that the prevalence is that of the sample.
    """
    is_class, score = draw(4, 100_000)
    places, held = [10, 20, 40], np.zeros(3)
    truth = np.array(decision_curve("a", is_class, score, np.arange(len(score)), Plan(1, seed=0)).net_benefit)[places]
    cases, others = np.flatnonzero(is_class), np.flatnonzero(~is_class)
    rng, n = np.random.default_rng(5), 300
    n_cases = round(n * is_class.mean())
    for seed in range(200):
        drawn = np.r_[rng.choice(cases, n_cases), rng.choice(others, n - n_cases)]
        curve = decision_curve("a", is_class[drawn], score[drawn], np.arange(n), Plan(300, seed=seed))
        held += (np.array(curve.low)[places] <= truth) & (truth <= np.array(curve.high)[places])
    # Three standard errors of 200 samples are 4.6 %.
    assert np.all(held / 200 > 0.95 - 0.05)


def test_scores_at_a_threshold_are_called():
    """A score that equals the threshold probability is a call."""
    curve = decision_curve("a", np.array([True, False]), np.array([THRESHOLDS[28], 0.0]), np.arange(2), FEW)
    assert curve.net_benefit[28] == 0.5
    assert curve.net_benefit[29] == 0.0
