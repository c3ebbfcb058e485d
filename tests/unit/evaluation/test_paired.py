"""Paired differences: their values, what they do not depend on, and by simulation what their intervals hold."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, ttest_rel

from medvision.errors import DataInvalid
from medvision.evaluation.paired import (
    Draws,
    check_same_cases,
    count_units,
    describe_difference,
    difference,
    draw,
    p_value,
)
from medvision.records import Plan

PLAN = Plan(200)


def of(values, replicates, n_units=50):
    """Draws of one figure."""
    return Draws(100, {"accuracy": n_units}, {"accuracy": values}, {"accuracy": np.asarray(replicates, dtype=float)})


@pytest.fixture
def pair(simulate_pair):
    return simulate_pair(np.random.default_rng(0), 60, 3, gain=0.5)


def test_a_difference_is_that_of_the_figures(pair):
    """The difference of two models is the figure of the first less that of the second."""
    a, b = (draw(each, PLAN) for each in pair)
    found = difference(a, b, "accuracy")
    expected = np.mean(pair[0].y_pred == pair[0].y_true) - np.mean(pair[1].y_pred == pair[1].y_true)
    assert found.value == pytest.approx(expected)
    assert found.low < found.bound < found.value < found.high
    assert (found.n, a.n_units["accuracy"], a.n_units["auroc"]) == (180, 60, 30)


def test_exchanging_the_models_turns_the_difference_over(pair):
    """Less of one is more of the other, with the same p value."""
    a, b = (draw(each, PLAN) for each in pair)
    one, other = difference(a, b, "auroc"), difference(b, a, "auroc")
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert p_value(a, b, "auroc") == pytest.approx(p_value(b, a, "auroc"))


def test_interval_and_p_value_say_the_same(simulate_pair):
    """Zero is outside of the 95 % interval exactly where p is below 0.05."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        a, b = (draw(each, Plan(100)) for each in simulate_pair(rng, 30, 3, gain=0.4))
        found = difference(a, b, "accuracy")
        assert (found.low > 0 or found.high < 0) == (p_value(a, b, "accuracy") < 0.05)


def test_is_the_paired_t_test_where_figures_are_means(simulate_pair):
    """With one image a patient, the p value of the accuracy is about that of the paired t test on right and wrong."""
    a, b = simulate_pair(np.random.default_rng(2), 300, 1, gain=0.3)
    expected = ttest_rel(a.y_pred == a.y_true, (b.y_pred == b.y_true).astype(int)).pvalue
    plan = Plan(4000)
    assert p_value(draw(a, plan), draw(b, plan), "accuracy") == pytest.approx(expected, rel=0.2)


def test_a_model_does_not_differ_from_itself(pair):
    """The same predictions twice have the difference 0, limits of what so many patients can hide, and p = 1."""
    a = draw(pair[0], PLAN)
    found, m = difference(a, a, "accuracy"), a.n_units["accuracy"]
    hidden = binomtest(0, m).proportion_ci(0.90, method="exact").high
    assert (found.value, found.bound) == (0, pytest.approx(-hidden))
    assert found.method == f"Clopper-Pearson on {m} patients alike"
    assert p_value(a, a, "accuracy") == 1


def test_a_difference_that_cannot_vary_has_no_p_value(as_predictions):
    """A faultless model differs from one that knows one class in every draw: no p value of 1."""
    y_true = np.arange(40) % 2
    faultless = as_predictions(y_true, np.eye(2)[y_true], ("no", "yes"))
    constant = as_predictions(y_true, np.tile([0.9, 0.1], (40, 1)), ("no", "yes"))
    a, b = draw(faultless, PLAN), draw(constant, PLAN)
    assert difference(a, b, "accuracy").value == 0.5
    assert p_value(a, b, "accuracy") is None


def test_a_few_undefined_draws_are_left_out():
    """Up to a tenth of the replicates may be undefined; the others make the interval."""
    drawn = np.random.default_rng(0).normal(0.1, 0.05, 200)
    drawn[:20] = np.nan
    found = describe_difference(0.1, drawn, 50, 100)
    assert found.high - found.low == pytest.approx(4 * 0.05, rel=0.1)
    drawn[20] = np.nan
    found = describe_difference(0.1, drawn, 50, 100)
    assert (found.value, found.low) == (0.1, None)
    assert found.method == "no interval: undefined in more than 10 % of the replicates"


def test_an_undefined_difference_is_none():
    """A figure that one side does not have has no difference, and no p value."""
    nothing = np.full(200, np.nan)
    found = describe_difference(float("nan"), nothing, 50, 100)
    assert (found.value, found.low, found.bound, found.method) == (None, None, None, "not defined")
    assert p_value(of(np.nan, nothing), of(0.5, nothing), "accuracy") is None


def test_one_patient_has_no_interval(simulate_pair):
    """A single patient tells nothing of others."""
    found = describe_difference(0.1, np.array([0.1, 0.2, 0.3]), 1, 10)
    assert (found.value, found.low, found.method) == (0.1, None, "no interval: fewer than two patients of a class")


def test_figures_rest_on_the_patients_of_the_rarest_class():
    """Accuracy rests on all patients, the figures of a class on those with or without it, others on the fewest."""
    y_true, patients = np.array([0, 0, 0, 1, 1, 0, 1, 2]), np.array([0, 0, 1, 2, 3, 4, 4, 5])
    found = count_units(y_true, patients, ("a", "b", "c"))
    assert found["accuracy"] == 6
    assert (found["sensitivity.a"], found["auroc.b"], found["f1.c"]) == (3, 3, 1)
    assert found["auroc"] == found["balanced_accuracy"] == 1


def test_classes_without_a_case_are_not_counted():
    """Of images of one class alone every figure rests on all patients."""
    assert set(count_units(np.zeros(4, int), np.array([0, 0, 1, 2]), ("a", "b")).values()) == {3}


def test_few_patients_have_wider_intervals():
    """The same spread tells less when it is that of fewer patients."""
    drawn = np.random.default_rng(0).normal(0, 0.1, 500)
    widths = [(f := describe_difference(0.0, drawn, m, 100)).high - f.low for m in (4, 10, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.5 * widths[2]


def test_shares_differ_by_one_at_most(as_predictions):
    """Limits and bound of a difference of figures in [0, 1] are in [-1, 1]; those of other losses are not cut."""
    drawn = np.random.default_rng(0).normal(-0.8, 0.3, 500)
    plain = describe_difference(-0.8, drawn, 4, 100)
    cut = describe_difference(-0.8, drawn, 4, 100, of_shares=True)
    assert plain.low < plain.bound < -1
    assert (cut.low, cut.bound, cut.value) == (-1, -1, -0.8)
    assert describe_difference(0.8, -drawn, 4, 100, of_shares=True).high == 1
    y_true = np.arange(12) % 2
    good, bad = np.eye(2)[y_true], np.eye(2)[np.where(np.arange(12) < 9, 1 - y_true, y_true)]
    a, b = (draw(as_predictions(y_true, score, ("no", "yes")), PLAN) for score in (bad, good))
    assert difference(a, b, "accuracy").low == -1
    assert difference(a, b, "nll").high > 1 and difference(a, b, "brier").high > 1


@pytest.mark.parametrize(
    "change", ["image_ids", "y_true", "classes"], ids=["other images", "other truth", "other classes"]
)
def test_other_cases_are_refused(pair, change):
    """Predictions of other images, of another truth or of other classes cannot be paired; the models are named."""
    other = {
        "image_ids": pair[1].image_ids[::-1], "y_true": 1 - pair[1].y_true, "classes": ("yes", "no"),
    }[change]  # fmt: skip
    check_same_cases("resnet18", pair[0], "densenet121", pair[1])
    with pytest.raises(DataInvalid, match="resnet18 and densenet121 to be of the same cases"):
        check_same_cases("resnet18", pair[0], "densenet121", dataclasses.replace(pair[1], **{change: other}))


def covered(simulate_pair, m, size, runs, gain=0.5, name="accuracy"):
    """Return how often the interval holds the true difference, over simulated studies."""
    rng = np.random.default_rng(m)
    a, b = (draw(each, Plan(2)).values[name] for each in simulate_pair(rng, 40_000, 1, gain))
    truth, held = a - b, 0
    for _ in range(runs):
        plan = Plan(150, int(rng.integers(1e6)))
        found = difference(*(draw(each, plan) for each in simulate_pair(rng, m, size, gain)), name)
        held += found.low is not None and found.low <= truth <= found.high
    return held / runs


@pytest.mark.parametrize(("m", "size"), [(12, 8), (80, 3)], ids=["few patients", "many patients"])
def test_intervals_hold_the_true_difference(simulate_pair, m, size):
    """With images that are alike within patients, 95 % intervals hold the truth about that often."""
    assert covered(simulate_pair, m, size, runs=150) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "auroc"])
@pytest.mark.parametrize(("m", "size"), [(12, 8), (30, 4), (150, 3)])
def test_intervals_hold_the_true_difference_in_many_studies(simulate_pair, m, size, name):
    """So do those of every figure that models are compared by, over a thousand studies."""
    # The AUROC of few patients is skewed: it is often 1, and then does not vary.
    lowest = 0.88 if name == "auroc" and m < 20 else 0.915
    assert lowest <= covered(simulate_pair, m, size, 1000, name=name) <= 0.985


def null_p_values(simulate_pair, m, size, runs):
    rng = np.random.default_rng(5)
    found = [[draw(each, Plan(150)) for each in simulate_pair(rng, m, size)] for _ in range(runs)]
    return np.array([p_value(a, b, "auroc") for a, b in found])


def test_p_values_are_uniform_without_a_difference(simulate_pair):
    """Of equally good models, every p value is as likely as any other."""
    assert kstest(null_p_values(simulate_pair, 60, 3, 200), "uniform").pvalue > 0.01


@pytest.mark.slow
def test_p_values_are_uniform_in_many_studies(simulate_pair):
    """Also over 1500 studies, with 5 % of them below 0.05."""
    found = null_p_values(simulate_pair, 60, 3, 1500)
    assert kstest(found, "uniform").pvalue > 0.001
    assert 0.035 <= (found < 0.05).mean() <= 0.065


def test_values_are_those_of_an_evaluation(predictions, as_predictions, evaluate):
    """Scores of float32, as a table holds them, have the figures of their evaluation, ECE too."""
    y_true, y_score = predictions()
    found, overall = draw(as_predictions(y_true, y_score), PLAN).values, evaluate(y_true, y_score).overall
    for name in ("accuracy", "auroc", "ece", "nll"):
        assert found[name] == pytest.approx(getattr(overall, name).value, rel=1e-9)
