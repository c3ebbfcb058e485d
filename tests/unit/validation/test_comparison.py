"""Candidate and champion are compared on the same cases, and what cannot be told apart is not called equal."""

import dataclasses

import numpy as np
import pytest
from validation_cases import CLASSES, evaluation_with, predictions_with

from medvision.errors import DataInvalid
from medvision.records import PackageInfo
from medvision.validation.comparison import compare, find_obstacle


def against(candidate, champion, digest="f" * 64):
    """Compare models that find so many of 100 cases of each class."""
    ours = dataclasses.replace(predictions_with(candidate), package_digest="a" * 64)
    theirs = dataclasses.replace(predictions_with(champion), package_digest=digest)
    return compare(ours, theirs, evaluation_with(candidate), "balanced_accuracy")


def test_the_difference_of_two_models():
    """The difference is that of the figures; its interval holds it, and its bound is below it."""
    found = against((95, 95, 95), (90, 90, 90))
    assert found.champion_digest == "f" * 64
    assert found.difference.value == pytest.approx(0.05)
    assert found.difference.low < found.difference.bound < 0.05 < found.difference.high


def test_a_pair_is_told_apart_better_than_its_parts():
    """What is hard for both models does not widen the interval of their difference."""
    found = against((80, 80, 80), (79, 80, 80)).difference
    own = evaluation_with((80, 80, 80)).overall.balanced_accuracy
    assert found.high - found.low < (own.high - own.low) / 2


def test_the_same_package_is_as_good_as_itself():
    """The champion against itself differs by exactly nothing."""
    found = against((90, 90, 90), (90, 90, 90), digest="a" * 64).difference
    assert (found.value, found.bound) == (0, 0)


def test_equal_calls_on_few_cases_are_no_proof():
    """Two models that agree on every case may differ on as many others as 100 cases of a class leave open."""
    found = against((90, 90, 90), (90, 90, 90)).difference
    assert found.value == 0
    assert found.bound == pytest.approx(0.05 ** (1 / 100) - 1)


def test_other_cases_are_refused():
    """Models that were scored on other cases are not compared."""
    one = predictions_with()
    other = dataclasses.replace(one, y_true=np.roll(one.y_true, 1), package_digest="f" * 64)
    with pytest.raises(DataInvalid):
        compare(one, other, evaluation_with(), "accuracy")


INFO = PackageInfo("resnet18", "phantom", CLASSES, (), None, (), None, "m" * 64, "b" * 64, "r")


def test_models_of_the_same_split_can_be_compared():
    """Candidate and champion of the same classes and split have no obstacle between them."""
    assert find_obstacle(INFO, dataclasses.replace(INFO, name="densenet121")) is None


@pytest.mark.parametrize(
    ("change", "what", "named", "remedy"),
    [
        ({"classes": CLASSES[:2]}, "classes", "tells glioma, meningioma apart", "dataset.name=NAME"),
        ({"split_fingerprint": "9" * 64}, "split", "split 999999999999", "again on the split at hand"),
    ],
)
def test_what_differs_is_named(change, what, named, remedy):
    """A champion of other classes, or one that may have been trained on the test images, is not scored, and why."""
    obstacle = find_obstacle(INFO, dataclasses.replace(INFO, **change))
    assert obstacle.what == what
    assert named in obstacle.message
    assert remedy in obstacle.remedy
