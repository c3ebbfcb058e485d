"""The operating point: its promise by simulation, its threshold by brute force, PPV and NPV by both and by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from medvision.errors import DataInvalid, OperatingPointUnattainable
from medvision.evaluation.operating_point import choose_operating_point, figures_at, patients_needed
from medvision.records import Figure, OperatingPoint

NO_FIGURE = Figure(None, None, None, None, 0, "")


def constant(n):
    return lambda rng, patients: np.full(patients, n)


SIZES = {
    "1 each": constant(1),
    "5 each": constant(5),
    "uneven": lambda rng, patients: rng.geometric(1 / 8, patients),
    "some of 40": lambda rng, patients: np.where(rng.random(patients) < 0.1, 40, 3),
}


def draw(rng, n_patients, icc, sizes):
    """Return standard normal scores of cases and their patients, whose images share ``icc`` of the variance."""
    groups = np.repeat(np.arange(n_patients), sizes(rng, n_patients))
    return np.sqrt(icc) * rng.normal(size=n_patients)[groups] + np.sqrt(1 - icc) * rng.normal(size=len(groups)), groups


def misses_of_the_promise(repeats, target, n_patients, icc, sizes, knows_patients=True):
    """Return in which share of val splits the true sensitivity at the chosen threshold is below the target."""
    rng, failed = np.random.default_rng(7), 0
    for _ in range(repeats):
        score, groups = draw(rng, n_patients, icc, sizes)
        point = choose(np.ones(len(score), dtype=bool), score, groups if knows_patients else None, target)
        failed += norm.sf(point.threshold) < target
    return failed / repeats


def choose(is_class, score, groups=None, target=0.85):
    return choose_operating_point("glioma", is_class, score, groups, target_sensitivity=target)


def at(threshold):
    return OperatingPoint("glioma", threshold, 0.85, NO_FIGURE, NO_FIGURE)


@pytest.mark.parametrize("target", [0.7, 0.85, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_best_specificity_that_shows_the_target(target, seed):
    """No higher score has a sensitivity whose exact one-sided 95 % bound, as scipy has it, reaches the target."""
    rng = np.random.default_rng(seed)
    is_class = rng.random(400) < 0.4
    score = (rng.normal(size=400) + 1.5 * is_class).astype(np.float32)
    point = choose(is_class, score, target=target)

    def bound(threshold):
        found = int((score[is_class] >= threshold).sum())
        return binomtest(found, int(is_class.sum()), alternative="greater").proportion_ci(0.95, "exact").low

    assert point.threshold == max(each for each in score[is_class] if bound(each) >= target)
    assert point.sensitivity.bound == pytest.approx(bound(point.threshold))
    assert point.specificity.value == np.mean(score[~is_class] < point.threshold)


def test_guarantee_of_independent_cases():
    """In at most 5 % of val splits is the true sensitivity below the target, and not for want of trying."""
    failed = misses_of_the_promise(2000, 0.85, 60, 0.0, SIZES["1 each"], knows_patients=False)
    # Three standard errors of 2,000 draws are 1.5 %; the exact test of 60 cases spends 3.2 % of its 5 %.
    assert 0.015 < failed < 0.05 + 0.015


@pytest.mark.parametrize("sizes", ["5 each", "some of 40"])
def test_guarantee_of_clustered_cases(sizes):
    """The promise holds where images of one patient are alike, and where some patients have many."""
    assert misses_of_the_promise(150, 0.85, 40, 0.6, SIZES[sizes]) < 0.05 + 0.03


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("icc", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("n_patients", "target"), [(20, 0.85), (30, 0.9), (60, 0.85), (100, 0.95)])
def test_guarantee_widely(sizes, icc, n_patients, target):
    """The promise holds for few and many patients, even and uneven, however alike their images are."""
    failed = misses_of_the_promise(800, target, n_patients, icc, SIZES[sizes])
    assert failed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 800)


def test_images_that_are_taken_for_independent_break_the_promise():
    """Without patients the same clustered cases fail far more often than promised: the simulation can tell."""
    assert misses_of_the_promise(150, 0.85, 40, 0.6, SIZES["5 each"], knows_patients=False) > 0.1


def test_the_bound_of_the_record_reaches_the_target():
    """With patients too, the recorded bound is at or above the target, and below the recorded sensitivity."""
    rng = np.random.default_rng(0)
    score, groups = draw(rng, 80, 0.5, SIZES["uneven"])
    is_class = groups < 60
    point = choose(is_class, score, groups)
    assert 0.85 <= point.sensitivity.bound < point.sensitivity.value
    assert point.sensitivity.low <= point.sensitivity.value <= point.sensitivity.high


def test_one_image_each_is_as_without_patients():
    """Where every patient has one image, knowing them changes nothing."""
    score = np.random.default_rng(1).normal(size=90)
    is_class = np.arange(90) < 60
    assert choose(is_class, score, np.arange(90) * 3).threshold == choose(is_class, score).threshold


def test_copies_of_images_are_not_evidence():
    """Ten copies of each image show no more than one."""
    score = np.random.default_rng(2).normal(size=60)
    is_class, groups = np.ones(60, dtype=bool), np.arange(60)
    copied = choose(np.repeat(is_class, 10), np.repeat(score, 10), np.repeat(groups, 10))
    assert copied.threshold == choose(is_class, score).threshold


def test_equal_scores_are_called_together():
    """Of scores that are all the same every case is called, and none is cleared."""
    point = choose(np.arange(60) < 30, np.full(60, 0.5))
    assert (point.threshold, point.sensitivity.value, point.specificity.value) == (0.5, 1.0, 0.0)


@pytest.mark.parametrize(("target", "needed"), [(0.8, 14), (0.85, 19), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_patients_needed(target, needed):
    """The number is the smallest at which a faultless model has a threshold, and one fewer has none."""
    assert patients_needed(target) == needed
    score = np.arange(needed, dtype=float)
    assert choose(np.ones(needed, dtype=bool), score, target=target).threshold == 0
    with pytest.raises(OperatingPointUnattainable):
        choose(np.ones(needed - 1, dtype=bool), score[1:], target=target)


def test_unattainable_says_what_is_missing():
    """The error, one of the data, names class, target, what val has, what a faultless model needs, and what to do."""
    is_class, groups = np.arange(100) < 36, np.arange(100) // 2
    with pytest.raises(OperatingPointUnattainable) as raised:
        choose(is_class, np.linspace(1, 0, 100), groups, target=0.9)
    for part in ("glioma", "0.9", "36 cases of 18 patients", "29 patients", "val_fraction", "target_sensitivity"):
        assert part in str(raised.value)
    assert isinstance(raised.value, DataInvalid)
    assert raised.value.exit_code == 5


@pytest.mark.parametrize("groups", [None, np.zeros(50, dtype=int)])
def test_no_case_and_one_patient_are_unattainable(groups):
    """A class without a case on val, or with one patient, has no operating point, and no threshold stands in for it."""
    with pytest.raises(OperatingPointUnattainable):
        choose(np.full(50, groups is not None), np.linspace(0, 1, 50), groups)


def confusion(found, positives, cleared, negatives):
    """Return truth and scores of which those above 0.5 are called."""
    is_class = np.repeat([True, False], [positives, negatives])
    called = np.r_[np.arange(positives) < found, np.arange(negatives) >= cleared]
    return is_class, np.where(called, 0.9, 0.1)


def test_predictive_values_by_hand():
    """Of 1,000 people 100 are ill: 90 are found, and 180 of 900 are called too; PPV 90/270, NPV 720/730."""
    is_class, score = confusion(45, 50, 40, 50)
    figures = figures_at(at(0.5), is_class, score, None, prevalence=0.1)
    assert figures.ppv.value == pytest.approx(90 / 270)
    assert figures.npv.value == pytest.approx(720 / 730)
    assert (figures.sensitivity.successes, figures.specificity.successes) == (45, 40)


def test_predictive_values_at_the_prevalence_of_the_sample():
    """At the sample's own prevalence they are the plain shares of the calls that are right."""
    is_class, score = confusion(30, 40, 100, 120)
    figures = figures_at(at(0.5), is_class, score, None, prevalence=0.25)
    assert figures.ppv.value == pytest.approx(30 / 50)
    assert figures.npv.value == pytest.approx(100 / 110)


def test_faultless_and_useless_models_have_figures():
    """A value of 1 lies in its interval, which is not a point; of a class that is never called PPV is not defined."""
    faultless = figures_at(at(0.5), *confusion(50, 50, 80, 80), None, prevalence=0.2)
    assert faultless.ppv.value == faultless.ppv.high == 1.0
    assert 0.5 < faultless.ppv.low < faultless.ppv.bound < 1.0
    never = figures_at(at(0.5), *confusion(0, 50, 80, 80), None, prevalence=0.2)
    assert never.ppv.value is None
    assert never.npv.value == pytest.approx(0.8)


def coverages(repeats, sensitivity, specificity, prevalence, n_patients, images=1, icc=0.0):
    """Return how often the intervals and the bounds of PPV and NPV hold the truth: four shares."""
    rng = np.random.default_rng(11)
    odds = prevalence / (1 - prevalence)
    truth = [sensitivity * odds / (sensitivity * odds + 1 - specificity)]
    truth.append(specificity / (specificity + (1 - sensitivity) * odds))
    is_class = np.repeat(np.arange(n_patients) % 3 == 0, images)
    held = np.zeros(4)
    for _ in range(repeats):
        score, groups = draw(rng, n_patients, icc, constant(images))
        score = np.where(is_class, norm.ppf(sensitivity) - score, score - norm.ppf(specificity))
        found = figures_at(at(0.0), is_class, score, groups if images > 1 else None, prevalence=prevalence)
        held += [
            figure.low <= true <= figure.high for figure, true in zip((found.ppv, found.npv), truth, strict=True)
        ] + [figure.bound <= true for figure, true in zip((found.ppv, found.npv), truth, strict=True)]
    return held / repeats


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.8), (0.97, 0.99)])
def test_coverage_of_predictive_values(sensitivity, specificity):
    """Intervals hold the true PPV and NPV in 95 % of test splits, and so do the one-sided bounds."""
    held = coverages(1500, sensitivity, specificity, 0.05, 180)
    assert np.all(held > 0.95 - 0.017)


def test_coverage_of_predictive_values_of_patients():
    """The same holds where each patient has four images that are alike."""
    held = coverages(700, 0.9, 0.85, 0.1, 180, images=4, icc=0.7)
    assert np.all(held > 0.95 - 0.03)
