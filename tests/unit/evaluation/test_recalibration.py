"""Calibration slope and intercept, against statsmodels and simulation."""

import numpy as np
import pytest

from medvision.evaluation.recalibration import calibration_intercept, calibration_slope


def study(seed=0, n_patients=80, n_images=4, slope=0.6, intercept=0.5):
    """Return is_case, score and groups whose true slope and whose shift are these; patients are correlated."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_patients), n_images)
    x = 1.5 * rng.normal(size=n_patients)[groups] + 0.5 * rng.normal(size=len(groups))
    is_case = rng.random(len(groups)) < 1 / (1 + np.exp(-(intercept + slope * x)))
    return is_case, 1 / (1 + np.exp(-x)), groups


def reference(is_case, score, groups, offset):
    """Return statsmodels' last coefficient and its robust error without the correction for n - k."""
    import statsmodels.api as sm

    x, n = np.log(score / (1 - score)), len(score)
    design = np.ones((n, 1)) if offset else sm.add_constant(x)
    model = sm.GLM(is_case.astype(float), design, family=sm.families.Binomial(), offset=x if offset else None)
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": groups}, tol=1e-12)
    return fit.params[-1], fit.bse[-1] * np.sqrt((n - design.shape[1]) / (n - 1))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_slope_and_intercept_are_those_of_statsmodels(seed, known):
    """Coefficients and cluster-robust errors are those of statsmodels' logistic regression, by patient and by image."""
    is_case, score, groups = study(seed)
    for figure_of, offset, side in ((calibration_slope, False, -1), (calibration_intercept, True, 1)):
        value, error = reference(is_case, score, groups if known else np.arange(len(score)), offset)
        figure = figure_of(is_case, score, groups if known else None)
        assert figure.value == pytest.approx(value, abs=1e-6)
        assert (figure.low, figure.high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=1e-4)
        assert figure.bound == pytest.approx(value + side * 1.645 * error, abs=1e-4)
        assert figure.method == f"Wald, sandwich by {'patient' if known else 'image'}"


def test_calibrated_scores():
    """Of calibrated scores the slope is 1 and the intercept 0, within their intervals."""
    is_case, score, groups = study(n_patients=2000, slope=1, intercept=0)
    slope, intercept = calibration_slope(is_case, score, groups), calibration_intercept(is_case, score, groups)
    assert slope.low < 1 < slope.high and slope.high - slope.low < 0.2
    assert intercept.low < 0 < intercept.high and intercept.high - intercept.low < 0.2


def test_too_extreme_scores_have_a_low_slope():
    """Scores whose logits are twice what they should be have a slope of a half."""
    is_case, score, _ = study(n_patients=5000, slope=0.5, intercept=0)
    assert calibration_slope(is_case, score, None).value == pytest.approx(0.5, abs=0.03)


def test_too_low_scores_have_a_positive_intercept():
    """Scores that are too low by 0.5 on the logit have an intercept of 0.5."""
    is_case, score, _ = study(n_patients=5000, slope=1, intercept=0.5)
    assert calibration_intercept(is_case, score, None).value == pytest.approx(0.5, abs=0.05)


def test_slope_covers():
    """In 95 % of simulated studies of 80 patients the interval holds the true slope."""
    figures = [calibration_slope(*study(seed)) for seed in range(400)]
    assert np.mean([figure.low <= 0.6 <= figure.high for figure in figures]) > 0.91


@pytest.mark.parametrize(
    "score",
    [[0.9, 0.8, 0.3, 0.2], [0.1, 0.2, 0.8, 0.9], [0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.5, 0.2], [1.0, 1.0, 0.0, 0.0]],
    ids=["separated", "reversed", "equal", "touching", "certain"],
)
def test_separated_scores_have_no_slope(score):
    """Where one cut separates cases from others nothing is estimated, and the method says why."""
    is_case = np.array([True, True, False, False])
    for figure_of in (calibration_slope, calibration_intercept):
        figure = figure_of(is_case, np.array(score), None)
        assert (figure.value, figure.low, figure.high, figure.bound) == (None, None, None, None)
        assert "separate" in figure.method


def test_scores_of_zero_and_one_are_finite():
    """A certain error moves the slope, and does not make it infinite."""
    is_case = np.arange(40) % 2 == 0
    score = np.where(is_case, 1.0, 0.0)
    score[:2] = 1 - score[:2]
    figures = calibration_slope(is_case, score, None), calibration_intercept(is_case, score, None)
    assert all(np.isfinite([figure.value, figure.low, figure.high]).all() for figure in figures)


def test_one_patient_has_no_interval():
    """With one patient the coefficients have values, but nothing to say how sure they are."""
    is_case, score, _ = study()
    figure = calibration_slope(is_case, score, np.zeros(len(score), int))
    assert figure.value is not None and figure.low is None and figure.method == "no interval: one patient"


@pytest.mark.parametrize("truth", [True, False])
def test_one_sided_cases_are_undefined(truth):
    """Without a case of the class, or without any other, there is neither slope nor intercept."""
    score = np.linspace(0.1, 0.9, 20)
    for fit in (calibration_slope, calibration_intercept):
        found = fit(np.full(20, truth), score, None)
        assert (found.value, found.n, found.method) == (None, 20, "not defined: no case, or no other")
