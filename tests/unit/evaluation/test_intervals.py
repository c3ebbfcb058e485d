"""Closed intervals and bounds, against published figures, scipy, statsmodels, definitions, and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from medvision.errors import DataInvalid
from medvision.evaluation.intervals import (
    auroc_interval,
    bootstrap_limits,
    certain,
    clopper_pearson_bound,
    delong,
    effective_size,
    lower_bound,
    proportion,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_intervals(successes, n, low, high):
    """Wilson's intervals are those of Newcombe, Statistics in Medicine 1998, table I, method 3."""
    figure = wilson(successes, n)
    assert (round(figure.low, 4), round(figure.high, 4)) == (low, high)


@pytest.mark.parametrize("n", [1, 2, 17, 400])
def test_wilson_is_that_of_scipy(n):
    """For every count of successes the interval is scipy's, holds its value, and stays in [0, 1]."""
    for successes in range(n + 1):
        figure, expected = wilson(successes, n), binomtest(successes, n).proportion_ci(0.95, "wilson")
        assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


@pytest.mark.parametrize("truth", [0.5, 0.85, 0.95])
def test_wilson_covers(truth):
    """In simulated studies of 100 cases the 95 % interval holds the truth in about 95 % of them."""
    counts = np.random.default_rng(0).binomial(100, truth, 20_000)
    intervals = {count: wilson(int(count), 100) for count in np.unique(counts)}
    covered = np.mean([intervals[count].low <= truth <= intervals[count].high for count in counts])
    # A discrete interval oscillates about its level (Agresti and Coull 1998).
    assert 0.93 < covered < 0.98


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("n", [1, 20, 300])
def test_exact_bound_is_that_of_scipy(n, level):
    """The one-sided bound is scipy's exact test turned round, for every count of successes."""
    for successes in range(n + 1):
        expected = binomtest(successes, n, alternative="greater").proportion_ci(level, "exact").low
        assert clopper_pearson_bound(successes, n, level) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "bound"), [(20, 0.861), (30, 0.905), (42, 0.931), (59, 0.950), (300, 0.990)])
def test_bound_of_a_perfect_score(n, bound):
    """n of n right show 0.05^(1/n) and no more."""
    assert round(clopper_pearson_bound(n, n), 3) == bound
    assert clopper_pearson_bound(n, n) == pytest.approx(0.05 ** (1 / n))


def test_bound_takes_fractions():
    """Between whole numbers of cases the bound lies between theirs."""
    assert clopper_pearson_bound(18, 20) < clopper_pearson_bound(18.9, 21) < clopper_pearson_bound(19.8, 22)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson_bound])
@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2), (math.nan, 2), (1, math.nan)])
def test_impossible_counts(interval, successes, n):
    """A proportion of nothing, or of impossible counts, is an error and never NaN."""
    with pytest.raises(DataInvalid, match="at least one case"):
        interval(successes, n)


def clustered(rng, m, size, p, icc):
    """Return correct (n,) and groups (n,): m patients of ``size`` images, right with p, and their correlation."""
    rates = np.full(m, p) if icc == 0 else rng.beta(p * (1 - icc) / icc, (1 - p) * (1 - icc) / icc, m)
    return rng.random(m * size) < np.repeat(rates, size), np.repeat(np.arange(m), size)


def test_effective_size_is_that_of_the_robust_variance():
    """p (1 - p) / size is the cluster-robust variance of the mean, as statsmodels computes it."""
    import statsmodels.api as sm

    correct, groups = clustered(np.random.default_rng(0), 40, 6, 0.8, 0.4)
    keep = np.random.default_rng(1).random(len(correct)) < 0.8
    correct, groups = correct[keep], groups[keep]
    fit = sm.OLS(correct.astype(float), np.ones(len(correct))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    p = correct.mean()
    assert effective_size(correct, groups) == pytest.approx(p * (1 - p) / fit.bse[0] ** 2)


@pytest.mark.parametrize(
    ("correct", "groups", "size"),
    [
        (np.ones(12, bool), np.arange(12) // 3, 4),
        (np.zeros(12, bool), np.arange(12) // 3, 4),
        (np.arange(12) > 2, np.zeros(12), 1),
        (np.repeat([True, False] * 10, 4), np.repeat(np.arange(20), 4), 19),
        (np.arange(40) % 2 == 0, np.arange(40) // 2, 40),
        (np.arange(12) > 2, None, 12),
    ],
    ids=["all right", "all wrong", "one patient", "patients alike within", "patients alike between", "unknown"],
)
def test_effective_size_at_its_ends(correct, groups, size):
    """It is the patients where nothing varies or all varies between them, and the images where nothing does."""
    assert effective_size(correct, groups) == pytest.approx(size)


def test_few_errors_count_patients():
    """With errors in fewer than 5 patients no more than the patients count, though images vary freely."""
    groups = np.arange(200) // 10
    correct = np.ones(200, bool)
    correct[[0, 10, 20, 30]] = False
    assert effective_size(correct, groups) == 20
    correct[40] = False
    assert effective_size(correct, groups) > 150


def test_keys_of_patients_may_be_anything():
    """Codes with gaps, or texts, group as codes from 0 on do."""
    correct, groups = clustered(np.random.default_rng(0), 30, 4, 0.7, 0.3)
    size = effective_size(correct, groups)
    assert effective_size(correct, groups * 7 + 3) == pytest.approx(size)
    assert effective_size(correct, groups.astype(str)) == pytest.approx(size)


def test_unknown_patients_count_images():
    """Without patients a proportion has Wilson's interval and the exact bound of its images."""
    figure = proportion(np.arange(50) > 4)
    assert figure == wilson(45, 50)
    assert (figure.successes, figure.n, figure.method) == (45, 50, "Wilson")
    assert figure.bound == clopper_pearson_bound(45, 50)


def test_a_faultless_class_counts_patients():
    """Where all images are right the interval and the bound are those of as many cases as there are patients."""
    figure = proportion(np.ones(100, bool), np.arange(100) // 5, np.ones(200))
    expected = wilson(20, 20)
    assert (figure.low, figure.high, figure.bound) == (expected.low, expected.high, expected.bound)
    assert (figure.value, figure.successes, figure.n, figure.method) == (1.0, 100, 100, "Wilson on 20 patients")


def test_draws_give_the_interval():
    """Where errors are in many patients, the interval has the spread of the draws, and the method names them."""
    correct, groups = clustered(np.random.default_rng(0), 40, 5, 0.8, 0.3)
    draws = np.random.default_rng(1).normal(correct.mean(), 0.03, 500)
    figure = proportion(correct, groups, draws)
    assert figure.method == "patient bootstrap, 500 replicates"
    assert figure.high - figure.low == pytest.approx(2 * 2.02 * 0.03, rel=0.1)
    assert figure.bound == lower_bound(correct, groups)
    assert figure.low < figure.value < figure.high


def test_a_wrong_image_never_lifts_the_bound_above_a_faultless_one():
    """However many images, a bound is at most that of the same patients all right."""
    correct = np.ones(400, bool)
    correct[::40] = False
    groups = np.arange(400) // 20
    assert lower_bound(correct, groups) <= clopper_pearson_bound(20, 20) == lower_bound(np.ones(400, bool), groups)


def test_nothing_is_not_defined():
    """The share of no case has no value, and says why."""
    figure = proportion(np.zeros(0, bool), np.zeros(0, int), np.full(10, np.nan))
    assert (figure.value, figure.low, figure.high, figure.bound, figure.n) == (None, None, None, None, 0)
    assert figure.method == "not defined: no case"


def held_bounds(m, size, p, icc, n_studies):
    rng = np.random.default_rng(m)
    return np.mean([lower_bound(*clustered(rng, m, size, p, icc)) <= p for _ in range(n_studies)])


@pytest.mark.parametrize(("m", "p"), [(20, 0.85), (20, 0.98), (60, 0.9)])
@pytest.mark.parametrize("icc", [0, 0.3, 0.9])
def test_bound_holds(m, p, icc):
    """Among independent and among correlated images the one-sided bound is below the truth in 95 % of the studies."""
    # 500 studies: two standard errors are 2 %.
    assert held_bounds(m, 5, p, icc, 500) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("m", [10, 20, 50, 200])
@pytest.mark.parametrize("p", [0.7, 0.85, 0.95, 0.98])
@pytest.mark.parametrize("icc", [0, 0.1, 0.3, 0.6, 0.9])
def test_bound_holds_to_the_percent(m, p, icc):
    """The bound is below the truth in 95 % of the studies, less what 4,000 of them can tell."""
    held = held_bounds(m, 5, p, icc, 4000)
    print(m, p, icc, held)
    assert held > 0.94


def uneven(rng, m, p, icc):
    """Return correct and groups of patients of whom a few have most of the images."""
    correct, groups = clustered(rng, m, 40, p, icc)
    keep = np.arange(40) < rng.geometric(0.2, m)[:, None]
    return correct[keep.ravel()], groups[keep.ravel()]


@pytest.mark.parametrize(("m", "p", "icc"), [(20, 0.85, 0.6), (50, 0.95, 0.3), (200, 0.95, 0.6)])
def test_bound_of_uneven_patients_nearly_holds(m, p, icc):
    """Where a few patients have most of the images the bound still holds in 90 % of the studies."""
    rng = np.random.default_rng(m)
    held = np.mean([lower_bound(*uneven(rng, m, p, icc)) <= p for _ in range(1000)])
    assert held > 0.90


def bound_of_images(m, size, p, icc, n_studies):
    rng = np.random.default_rng(m)
    return np.mean([lower_bound(clustered(rng, m, size, p, icc)[0], None) <= p for _ in range(n_studies)])


def test_bound_by_image_does_not_hold():
    """A bound that takes correlated images for independent fails in far more than 5 % of the studies."""
    assert bound_of_images(60, 5, 0.9, 0.6, 500) < 0.87


def scores(rng, n_cases, n_others, shift, digits=8):
    y_true = np.repeat([True, False], [n_cases, n_others])
    return y_true, np.round(rng.normal(size=len(y_true)) + shift * y_true, digits)


@pytest.mark.parametrize("digits", [0, 1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_delong_is_that_of_its_definition(seed, digits):
    """AUROC, components and variance are those of comparing every case with every counter-case, ties half."""
    y_true, y_score = scores(np.random.default_rng(seed), 30, 50, 1.0, digits)
    difference = y_score[y_true][:, None] - y_score[~y_true][None, :]
    kernel = (difference > 0) + 0.5 * (difference == 0)
    found = delong(y_true, y_score)
    assert found.auroc == pytest.approx(kernel.mean())
    np.testing.assert_allclose(found.cases, kernel.mean(axis=1))
    np.testing.assert_allclose(found.others, kernel.mean(axis=0))
    assert found.variance == pytest.approx(
        np.var(kernel.mean(axis=1), ddof=1) / 30 + kernel.mean(axis=0).var(ddof=1) / 50
    )


def test_delong_is_that_of_another_library():
    """AUROC and variance are those that confidenceinterval 1.0.5 gives; it cannot be installed beside setuptools 77."""
    rng = np.random.default_rng(7)
    y_true = rng.random(60) < 0.4
    found = delong(y_true, np.round(rng.normal(size=60) + y_true, 1))
    assert found.auroc == pytest.approx(0.7211429, abs=1e-6)
    assert found.variance == pytest.approx(0.004792456110701614)


def test_components_give_the_variance_of_a_difference():
    """The variance of the difference of two models on the same images, from components, is what simulation finds."""
    rng, differences, variances = np.random.default_rng(0), [], []
    for _ in range(1000):
        y_true, common = scores(rng, 40, 60, 1.0)
        one, two = (delong(y_true, common + rng.normal(0, 0.5, 100)) for _ in range(2))
        cases = np.var(one.cases - two.cases, ddof=1) / 40
        differences.append(one.auroc - two.auroc)
        variances.append(cases + np.var(one.others - two.others, ddof=1) / 60)
    assert np.var(differences) == pytest.approx(np.mean(variances), rel=0.15)


@pytest.mark.parametrize(("n", "shift"), [(30, 1.0), (100, 1.0), (30, 2.5), (100, 2.5)])
def test_delong_covers(n, shift):
    """In 95 % of simulated studies the interval holds the true AUROC, near 1 and with few cases too."""
    from scipy.stats import norm

    truth, rng = norm.cdf(shift / math.sqrt(2)), np.random.default_rng(n)
    figures = [auroc_interval(*scores(rng, n, n, shift)) for _ in range(1000)]
    assert np.mean([figure.low <= truth <= figure.high for figure in figures]) > 0.93
    assert np.mean([figure.bound <= truth for figure in figures]) > 0.93


def test_a_faultless_ranking_counts_pairs():
    """An AUROC of 1 from 20 cases and 50 others has the exact bound of 20 right pairs, and not 1."""
    figure = auroc_interval(*scores(np.random.default_rng(0), 20, 50, 100.0))
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert figure.bound == pytest.approx(0.05 ** (1 / 20))
    assert figure.method == "Wilson on 20 independent pairs: no variation"


@pytest.mark.parametrize(("n_cases", "n_others"), [(1, 1), (1, 50), (50, 1)])
def test_one_case_shows_little(n_cases, n_others):
    """With a single case, or a single other, the AUROC has the interval of one pair."""
    figure = auroc_interval(*scores(np.random.default_rng(0), n_cases, n_others, 100.0))
    assert figure.bound == pytest.approx(0.05)
    assert 0 < figure.low < 0.25


def test_certainty_of_an_error_is_bounded_above():
    """An error of 0 in k pairs may be as high as 1 - 0.05^(1/k); without a pair it may be anything."""
    figure = certain(0.0, 20, 100, is_error=True)
    assert (figure.low, figure.bound) == (0.0, pytest.approx(1 - 0.05 ** (1 / 20)))
    nothing = certain(0.0, 0, 100, is_error=True)
    assert (nothing.low, nothing.high, nothing.bound) == (0.0, 1.0, 1.0)


def test_bootstrap_limits_stay_in_range():
    """Limits of a share stay in [0, 1] and those of a loss above 0, however wide the draws; both hold the value."""
    draws = np.random.default_rng(0).normal(0.5, 5, 1000)
    for is_loss in (False, True):
        limits = bootstrap_limits(draws, 0.5, 3, is_loss=is_loss)
        assert 0 <= limits.low <= limits.lower <= 0.5 <= limits.upper <= limits.high
        assert is_loss or limits.high <= 1


def test_few_patients_widen_limits():
    """The same spread of draws gives wider limits for fewer patients."""
    draws = np.random.default_rng(0).normal(0.8, 0.05, 1000)
    widths = [np.ptp(bootstrap_limits(draws, 0.8, m)[:2]) for m in (3, 10, 1000)]
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


@pytest.mark.parametrize(
    ("draws", "value", "m"),
    [
        (np.full(100, 0.8), 0.8, 50),
        (0.8 + 1e-16 * np.arange(100), 0.8, 50),
        (np.where(np.arange(100) < 11, np.nan, np.linspace(0, 1, 100)), 0.8, 50),
        (np.full(100, np.nan), 0.8, 50),
        (np.linspace(0, 1, 100), 1.0, 50),
        (np.linspace(0, 1, 100), 0.8, 1),
    ],
    ids=["constant", "rounding", "11 % undefined", "undefined", "at its end", "one patient"],
)
def test_draws_that_tell_nothing(draws, value, m):
    """Draws that do not vary, are undefined too often, or come of one patient give no limits."""
    assert bootstrap_limits(draws, value, m) is None


def test_some_undefined_draws_are_left_out():
    """A tenth of the draws may be undefined."""
    draws = np.linspace(0.7, 0.9, 100)
    draws[::10] = np.nan
    assert bootstrap_limits(draws, 0.8, 50) is not None
