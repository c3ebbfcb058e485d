"""Temperature and reliability bins, against scikit-learn, closed forms and simulation."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from medvision.errors import DataInvalid
from medvision.evaluation.calibration import TEMPERATURES, fit_temperature, reliability
from medvision.evaluation.figures import compute, figure_names, prepare
from medvision.models.ensemble import sharpen


def draw(n, temperature, k=3, seed=0):
    """Return logits (n, k) that are too sharp by ``temperature``, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, k))
    y_true = (rng.random((n, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1)
    return logits * temperature, y_true


def nll(logits, y_true):
    return -log_softmax(logits, axis=1)[np.arange(len(y_true)), y_true].mean()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_recovers_the_temperature(temperature):
    """Logits that were multiplied by a number give it back as their temperature."""
    assert fit_temperature(*draw(40_000, temperature)) == pytest.approx(temperature, rel=0.03)


def test_agrees_with_scikit_learn():
    """The calibrated probabilities are those of scikit-learn's temperature scaling."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    logits, y_true = draw(600, 3.0)
    model = LogisticRegression(C=1e6, max_iter=5000).fit(logits[:60], y_true[:60])
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), method="temperature", ensemble=False)
    expected = calibrated.fit(logits[60:], y_true[60:]).predict_proba(logits)
    temperature = fit_temperature(model.predict_log_proba(logits[60:]), y_true[60:])
    assert sharpen(model.predict_proba(logits), temperature) == pytest.approx(expected, abs=2e-4)


def test_log_probabilities_serve_as_logits():
    """Logits and the logarithm of their softmax have one temperature."""
    logits, y_true = draw(500, 2.0)
    assert fit_temperature(log_softmax(logits, axis=1), y_true) == pytest.approx(fit_temperature(logits, y_true))


@pytest.mark.parametrize("seed", range(20))
def test_never_worsens_the_nll_it_was_fitted_on(seed):
    """However few the cases, NLL on them is no larger than with the temperature 1."""
    logits, y_true = draw(12, 4.0, seed=seed)
    temperature = fit_temperature(logits, y_true)
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    assert nll(logits / temperature, y_true) <= nll(logits, y_true) + 1e-9


@pytest.mark.parametrize(
    ("logits", "y_true"),
    [([[2.0, 0.0]], [0]), ([[0.5, 0.5], [0.5, 0.5]], [0, 1]), ([[3.0, 0.0], [0.0, 1.0]], [0, 1])],
    ids=["one row", "constant", "all right"],
)
def test_leaves_scores_alone_where_nothing_can_be_learned(logits, y_true):
    """One row, constant logits, or no error at all give the temperature 1, and not endless confidence."""
    assert fit_temperature(np.array(logits), np.array(y_true)) == 1.0


def test_worthless_scores_are_flattened():
    """Sure scores that are wrong as often as right lose their confidence, within the bounds."""
    logits = np.array([[9.0, 0.0]] * 50)
    assert fit_temperature(logits, np.arange(50) % 2) == pytest.approx(TEMPERATURES[1], rel=1e-3)


@pytest.mark.parametrize("logits", [np.zeros((0, 2)), np.array([[np.nan, 0.0]]), np.array([[-np.inf, 0.0]])])
def test_refuses_what_is_not_a_number(logits):
    """No cases, NaN and infinity are errors, and not a temperature."""
    with pytest.raises(DataInvalid, match="finite logits"):
        fit_temperature(logits, np.zeros(len(logits), dtype=int))


def test_can_be_undone():
    """Sharpened by T and then by 1 / T, probabilities are what they were."""
    scores = softmax(draw(50, 1.0)[0], axis=1)
    assert sharpen(sharpen(scores, 3.0), 1 / 3.0) == pytest.approx(scores)


def test_bins_are_those_of_the_ece(predictions):
    """The gaps of the bins, weighted by their cases, are the ECE and the class-wise ECE that are reported."""
    y_true, y_score = predictions(n=331)
    sample = prepare(y_true, y_score, np.arange(331))
    figures = dict(zip(figure_names("abc"), compute(sample, np.ones((1, 331)))[0], strict=True))

    def ece(bins):
        return sum(each.observed.n * abs(each.observed.value - each.mean_score) for each in bins) / 331

    bins = reliability(y_true, y_score, None)
    assert ece(bins.top_label) == pytest.approx(figures["ece"], abs=1e-6)
    assert np.mean([ece(each) for each in bins.per_class]) == pytest.approx(figures["classwise_ece"], abs=1e-6)


def test_bins_are_of_equal_mass_and_rise(predictions):
    """Fifteen bins hold every case once, equally many each, by rising score."""
    bins = reliability(*predictions(n=300), None).top_label
    assert [each.observed.n for each in bins] == [20] * 15
    assert np.all(np.diff([each.mean_score for each in bins]) > 0)


def test_equal_scores_share_a_bin():
    """Scores of two values make two bins, whatever the order of the cases."""
    y_score = np.tile([[0.3, 0.7], [0.4, 0.6]], (20, 1))
    bins = reliability(np.arange(40) // 2 % 2, y_score, None).per_class[1]
    assert [(each.mean_score, each.observed.successes, each.observed.n) for each in bins] == [
        (pytest.approx(0.6), 10, 20),
        (pytest.approx(0.7), 10, 20),
    ]
