"""Comparisons of models: the tests against their definitions and by simulation, and what is refused."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from medvision.errors import DataInvalid
from medvision.evaluation.compare import FIGURES, TESTS, compare_models, delong_test, holm, mcnemar
from medvision.records import Plan

PLAN = Plan(200)


@pytest.fixture
def models(simulate_pair):
    """Three models by name, the second the best."""
    a, b = simulate_pair(np.random.default_rng(0), 80, 2, gain=0.6, groups=False)
    _, c = simulate_pair(np.random.default_rng(0), 80, 2, groups=False)
    return [("resnet18", b), ("densenet121", a), ("vit", c)]


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_that_of_statsmodels(seed):
    """Where patients are unknown, the p value is that of the exact test on the two by two table."""
    rng = np.random.default_rng(seed)
    a, b = rng.random(80) < 0.8, rng.random(80) < 0.65
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert mcnemar(a, b, None) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


@pytest.mark.parametrize("groups", [None, np.arange(20) // 2])
def test_mcnemar_of_the_same_answers(groups):
    """Models that are right in the same cases do not differ: p = 1."""
    right = np.arange(20) % 3 > 0
    assert mcnemar(right, right, groups) == 1


def test_mcnemar_by_patient_is_that_of_obuchowski():
    """The square of the summed differences, over the sum of the patients' squares, is held against chi-squared."""
    from scipy.stats import chi2

    a, b = np.array([1, 1, 0, 1, 1, 1, 0, 1]) == 1, np.array([0, 0, 0, 0, 1, 0, 1, 0]) == 1
    groups = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    # Differences by patient: 2, 1, 1, -1, 1.
    assert mcnemar(a, b, groups) == pytest.approx(chi2.sf(4**2 / 8, 1))


def test_copies_of_images_add_nothing_where_patients_are_known():
    """Ten copies of every image of a patient leave McNemar's test by patient as it was."""
    rng = np.random.default_rng(0)
    a, b, rows = rng.random(60) < 0.9, rng.random(60) < 0.7, np.repeat(np.arange(60), 10)
    assert mcnemar(a[rows], b[rows], rows) == pytest.approx(mcnemar(a, b, np.arange(60)))


def false_alarms(m, size, runs):
    """Return how often equally good models with correlated images differ at 5 %: by patient, and by image."""
    rng, groups = np.random.default_rng(m), np.repeat(np.arange(m), size)

    def right():
        of_patient, alike = rng.random(m) < 0.8, rng.random(m) < 0.8
        return np.where(alike[groups], of_patient[groups], rng.random(m * size) < 0.8)

    found = [(mcnemar(a := right(), b := right(), groups) < 0.05, mcnemar(a, b, None) < 0.05) for _ in range(runs)]
    return np.mean(found, axis=0)


@pytest.mark.parametrize("m", [15, 40, 150])
def test_mcnemar_by_patient_keeps_its_level(m):
    """With correlated images it finds a difference that is not there in 5 %; the test on images does in over 15 %."""
    by_patient, by_image = false_alarms(m, 5, 600)
    assert by_patient <= 0.07
    assert by_image > 0.15


@pytest.mark.slow
@pytest.mark.parametrize("m", [5, 10, 15, 40, 150])
def test_mcnemar_by_patient_keeps_its_level_in_many_studies(m):
    """Also with few patients, over 10,000 studies."""
    assert false_alarms(m, 5, 10_000)[0] <= 0.056


def kernel_covariance(y_true, scores):
    """DeLong's covariance of AUROCs by its definition: the kernel of every pair of a case and another image."""
    kernels = []
    for score in scores:
        cases, others = score[y_true][:, None], score[~y_true][None, :]
        kernels.append((cases > others) + 0.5 * (cases == others))
    by_case, by_other = ([k.mean(axis=axis) for k in kernels] for axis in (1, 0))
    m, n = kernels[0].shape
    return [k.mean() for k in kernels], np.cov(by_case) / m + np.cov(by_other) / n


@pytest.mark.parametrize("decimals", [8, 1], ids=["no ties", "ties"])
@pytest.mark.parametrize("seed", range(3))
def test_delong_is_its_definition(seed, decimals):
    """The p value is that of the difference over its standard error, from the covariance over all pairs."""
    rng = np.random.default_rng(seed)
    y_true = np.arange(90) % 3 == 0
    shared = rng.normal(size=90)
    a, b = (np.round(0.8 * y_true + shared + rng.normal(size=90), decimals) for _ in range(2))
    aurocs, covariance = kernel_covariance(y_true, [a, b])
    z = (aurocs[0] - aurocs[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert delong_test(y_true, a, b) == pytest.approx(2 * norm.sf(abs(z)), rel=1e-9)


def delong_false_alarms(runs):
    rng, y_true = np.random.default_rng(3), np.arange(120) % 3 == 0
    found = []
    for _ in range(runs):
        shared = y_true + rng.normal(size=120)
        found.append(delong_test(y_true, shared + rng.normal(size=120), shared + rng.normal(size=120)) < 0.05)
    return np.mean(found)


def test_delong_keeps_its_level():
    """Equally good models on independent images differ at 5 % in about 5 % of studies."""
    assert 0.03 <= delong_false_alarms(1000) <= 0.07


@pytest.mark.slow
def test_delong_keeps_its_level_in_many_studies():
    """Also over 20,000 studies."""
    assert 0.044 <= delong_false_alarms(20_000) <= 0.057


def test_delong_of_faultless_models():
    """Two perfect rankings do not differ; a perfect one and a constant one differ without a variance: no p value."""
    y_true = np.arange(20) % 2 == 0
    perfect = y_true.astype(float)
    assert delong_test(y_true, perfect, perfect + 1) == 1
    assert delong_test(y_true, perfect, np.zeros(20)) is None
    assert delong_test(np.arange(20) == 0, perfect, np.zeros(20)) is None


@pytest.mark.parametrize("n", [1, 2, 7, 21])
def test_holm_is_that_of_statsmodels(n):
    """Adjusted p values are those of statsmodels, in the given order."""
    p = np.random.default_rng(n).random(n) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_every_pair_is_compared_once(models):
    """Three models are three pairs, in the order given, each with all differences and tests that apply."""
    pairs = compare_models(models, PLAN)
    assert [(pair.a, pair.b) for pair in pairs] == [
        ("resnet18", "densenet121"), ("resnet18", "vit"), ("densenet121", "vit"),
    ]  # fmt: skip
    for pair in pairs:
        assert set(pair.differences) == set(FIGURES)
        assert set(pair.p_values) == set(pair.adjusted_p_values) == set(TESTS)


def test_p_values_are_adjusted_for_the_pairs(models):
    """Each figure and each test is adjusted by itself, for the number of pairs."""
    pairs = compare_models(models, PLAN)
    for test in TESTS:
        expected = multipletests([pair.p_values[test] for pair in pairs], method="holm")[1]
        np.testing.assert_allclose([pair.adjusted_p_values[test] for pair in pairs], expected)


def test_a_better_model_is_found(models):
    """The model that is better shows it in every difference and every test."""
    pair = compare_models(models, PLAN)[0]
    assert all(figure.high < 0 for figure in pair.differences.values())
    assert all(p < 0.05 for p in pair.p_values.values())


def test_delong_is_left_out_where_it_does_not_apply(simulate_pair, as_predictions, predictions):
    """DeLong counts images and ranks two classes: no entry where patients are known, or with three classes."""
    by_patient = compare_models(list(zip("ab", simulate_pair(np.random.default_rng(0), 30, 2), strict=True)), PLAN)
    y_true, y_score = predictions()
    three = [("a", as_predictions(y_true, y_score)), ("b", as_predictions(y_true, y_score[:, [0, 2, 1]]))]
    for pair in (*by_patient, *compare_models(three, PLAN)):
        assert set(pair.p_values) == set(pair.adjusted_p_values) == {*FIGURES, "mcnemar"}


def test_a_test_that_does_not_apply_to_one_pair_is_left_out_there(as_predictions):
    """A faultless model and one that knows one class have McNemar's p value, and none of the bootstrap."""
    y_true = np.arange(40) % 2
    rng = np.random.default_rng(0)
    models = [
        ("faultless", as_predictions(y_true, np.eye(2)[y_true], ("no", "yes"))),
        ("constant", as_predictions(y_true, np.tile([0.9, 0.1], (40, 1)), ("no", "yes"))),
        ("other", as_predictions(y_true, rng.dirichlet((1, 1), 40), ("no", "yes"))),
    ]
    pairs = compare_models(models, PLAN)
    assert set(pairs[0].p_values) == {"mcnemar"}
    assert pairs[0].p_values["mcnemar"] < 0.001
    assert pairs[0].differences["accuracy"].value == 0.5
    tested = [pair.p_values["accuracy"] for pair in pairs[1:]]
    np.testing.assert_allclose(
        [pair.adjusted_p_values["accuracy"] for pair in pairs[1:]], multipletests(tested, method="holm")[1]
    )


def test_models_of_other_cases_are_refused(models):
    """Models that were scored on other cases, or in another order, are not compared, and both are named."""
    other = dataclasses.replace(models[2][1], image_ids=models[2][1].image_ids[::-1])
    with pytest.raises(DataInvalid, match="vit and resnet18 to be of the same cases"):
        compare_models([*models[:2], ("vit", other)], PLAN)


def test_the_same_models_give_the_same_comparison(models):
    """Two comparisons of the same predictions are one, to the last bit."""
    assert compare_models(models, PLAN) == compare_models(models, PLAN)
