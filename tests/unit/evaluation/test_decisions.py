"""What is fitted on val and frozen in the package: temperature, operating points, prediction sets."""

import dataclasses

import numpy as np
import pytest

from medvision.config import EvaluationConfig
from medvision.errors import ConfigInvalid, OperatingPointUnattainable
from medvision.evaluation.calibration import fit_temperature
from medvision.evaluation.conformal import fit_conformal, prediction_sets
from medvision.evaluation.decisions import check_critical, fit_decisions
from medvision.evaluation.operating_point import choose_operating_point, is_called
from medvision.models.ensemble import combine, sharpen
from medvision.records import Combination, Member, PackageInfo, Preprocessing

CLASSES = ("glioma", "meningioma", "pituitary")
CONFIG = EvaluationConfig(critical_classes=("glioma", "pituitary"), target_sensitivity=0.8, coverage=0.9)


@pytest.fixture
def package():
    member = Member("tiny", {}, Preprocessing(8, 3, (0,), (1,)), 1.0, "run", 1, 0.5)
    lineage = dict.fromkeys(("manifest_fingerprint", "split_fingerprint", "run_key"), "x")
    return PackageInfo(
        name="p", dataset="d", classes=CLASSES, members=(member,), combination=Combination(),
        operating_points=(), conformal=None, **lineage,
    )  # fmt: skip


@pytest.fixture
def val(predictions, as_predictions):
    return as_predictions(*predictions(n=400), groups=np.arange(400) // 2)


@pytest.fixture
def fitted(package, val):
    return fit_decisions(package, val, CONFIG)


def test_the_temperature_is_that_of_the_smallest_log_loss(fitted, val):
    """The package's temperature is the one that calibrates val, and no other one does better."""

    def loss(temperature):
        return -np.log(sharpen(val.y_score, temperature)[np.arange(400), val.y_true]).mean()

    temperature = fitted.combination.temperature
    assert temperature == fit_temperature(np.log(val.y_score.astype(np.float64)), val.y_true)
    assert loss(temperature) < min(loss(0.9 * temperature), loss(1.1 * temperature))


def test_only_critical_classes_have_operating_points(fitted):
    """One for each critical class, in the order of the classes."""
    assert [point.class_name for point in fitted.operating_points] == ["glioma", "pituitary"]


def test_operating_points_are_chosen_on_calibrated_scores(fitted, val):
    """Thresholds are of the scores that the package will give, by patient, with the target of the settings."""
    y_score = combine(val.y_score[None], fitted.combination)
    for point, c in zip(fitted.operating_points, (0, 2), strict=True):
        is_class = val.y_true == c
        assert point == choose_operating_point(
            CLASSES[c], is_class, y_score[:, c], val.groups, target_sensitivity=CONFIG.target_sensitivity
        )
        assert is_called(y_score[is_class, c], point.threshold).mean() >= 0.8


def test_prediction_sets_are_fitted_on_calibrated_scores(fitted, val):
    """The conformal thresholds are those of the package's scores, at the coverage of the settings."""
    y_score = combine(val.y_score[None], fitted.combination)
    assert fitted.conformal == fit_conformal(val.y_true, y_score, val.units, 0.9)


def test_the_rest_of_the_package_is_left(package, fitted):
    """Nothing but what is fitted changes."""
    same = dataclasses.replace(fitted, combination=package.combination, operating_points=(), conformal=None)
    assert same == package
    assert dataclasses.replace(fitted.combination, temperature=1.0) == package.combination


def test_fitting_again_changes_nothing(fitted, val):
    """Val's scores before a temperature give the same decisions, whatever temperature the package had."""
    assert fit_decisions(fitted, val, CONFIG) == fitted


def test_no_critical_class_no_operating_point(package, val):
    """Without a critical class there is a temperature and there are prediction sets."""
    found = fit_decisions(package, val, EvaluationConfig())
    assert found.operating_points == ()
    assert found.conformal is not None


@pytest.mark.parametrize("setting", [{"critical_classes": ("gliomas",)}, {"prevalence": {"gliomas": 0.1}}])
def test_an_unknown_class_is_named_with_the_nearest(package, val, setting):
    """A class that the model does not know is refused, and the nearest is named."""
    config = EvaluationConfig(**setting)
    with pytest.raises(ConfigInvalid, match=r"no class 'gliomas'\. Did you mean 'glioma'"):
        fit_decisions(package, val, config)
    with pytest.raises(ConfigInvalid, match=r"no class 'gliomas'\. Known: a, b"):
        check_critical(config, ("a", "b"))


def test_too_few_cases_for_the_target_are_said(package, predictions, as_predictions):
    """Where val cannot show the target sensitivity, the class is named, and nothing is fitted."""
    few = as_predictions(*predictions(n=30))
    with pytest.raises(OperatingPointUnattainable, match=r"0\.99 for glioma"):
        fit_decisions(package, few, EvaluationConfig(critical_classes=("glioma",), target_sensitivity=0.99))


def hard_votes(rng, n):
    """Return members (3, n, 3) that are each sure of their vote, alike in every case: scores take a few values."""
    y_true = np.concatenate([np.arange(3), rng.integers(0, 3, n - 3)])
    votes = np.where(rng.random((3, n)) < 0.8, y_true, rng.integers(0, 3, (3, n)))
    return y_true, 0.1 + 0.7 * np.eye(3)[votes]


def test_scores_that_equal_a_threshold_reach_it(package, as_predictions):
    """Whatever the temperature, test cases with the scores of val cases are called, and are in sets, as those are."""
    rng, temperatures = np.random.default_rng(6), set()
    info = dataclasses.replace(package, combination=Combination("hard", (1.0,) * 3))
    for _ in range(50):
        y_true, members = hard_votes(rng, 300)
        # As a package scores: in float64, and then float32 without a temperature on val, and with it on test.
        val = as_predictions(y_true, combine(members, info.combination).astype(np.float32))
        fitted = fit_decisions(info, val, CONFIG)
        temperatures.add(fitted.combination.temperature)
        y_score = combine(members, fitted.combination).astype(np.float32)
        seen = sharpen(val.y_score, fitted.combination.temperature).astype(np.float32)
        np.testing.assert_array_equal(y_score, seen)
        held = prediction_sets(y_score, fitted.conformal)[np.arange(300), y_true]
        for c in range(3):
            assert held[y_true == c].mean() >= 0.9 - 1 / (y_true == c).sum()
        for point in fitted.operating_points:
            is_class = y_true == CLASSES.index(point.class_name)
            called = is_called(y_score[:, CLASSES.index(point.class_name)], point.threshold)
            assert called[is_class].mean() == pytest.approx(point.sensitivity.value)
            assert 1 - called[~is_class].mean() == pytest.approx(point.specificity.value)
    assert len(temperatures) == 50


def test_thresholds_are_float32(fitted):
    """Every threshold is a number that a score can equal."""
    thresholds = *fitted.conformal.thresholds, *(point.threshold for point in fitted.operating_points)
    assert all(threshold == float(np.float32(threshold)) for threshold in thresholds)


@pytest.mark.parametrize("temperature", np.geomspace(0.05, 20, 50))
def test_equal_scores_stay_equal_after_the_cast(temperature):
    """At each temperature, thresholds of scores in float64 hold the same scores in float32."""
    y_score = sharpen(np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]] * 20), temperature)
    y_true = np.arange(60) % 3
    cast = y_score.astype(np.float32)
    assert prediction_sets(cast, fit_conformal(y_true, y_score, np.arange(60), 0.9))[np.arange(60), y_true].all()
    point = choose_operating_point("glioma", y_true == 0, y_score[:, 0], None, target_sensitivity=0.8)
    assert is_called(cast[y_true == 0, 0], point.threshold).all()
