"""Evidence that was touched is named."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from validation_cases import CLASSES, PLAN, evaluation_with, predictions_with

from medvision.data.manifest import Manifest
from medvision.data.split import Split
from medvision.records import PackageInfo, Plan
from medvision.validation import integrity

INFO = PackageInfo("resnet18", "phantom", CLASSES, (), None, (), None, "m" * 64, "b" * 64, "r")


def origin(predictions, info=INFO, **at_hand):
    expected = {"package_digest": "a" * 64, "test_fingerprint": "d" * 64, "split_fingerprint": "b" * 64}
    return integrity.check_origin(predictions, info, **{**expected, **at_hand})


@pytest.fixture
def predictions():
    return dataclasses.replace(
        predictions_with(n=10, found=(9, 9, 9), images_per_patient=2),
        package_digest="a" * 64,
        test_fingerprint="d" * 64,
    )


@pytest.fixture
def dataset(predictions):
    """Return manifest and split whose test set is that of the predictions, after two training images."""
    rows = pd.DataFrame(
        {
            "image_id": ["x", "y", *predictions.image_ids],
            "patient_key": ["", "", *predictions.patient_keys],
            "label": [0, 1, *predictions.y_true],
        }
    )
    sides = np.array(["train", "train", *["test"] * len(predictions.y_true)])
    return Manifest(None, CLASSES, rows, (), 0, "", "m"), Split(sides, "m", "s")


def test_recomputed_figures_are_the_stated_ones():
    """The figures that are computed from the same predictions, by the same plan, are those that were stated."""
    stated = evaluation_with()
    again = integrity.recompute(stated, predictions_with(), INFO, package_digest="a" * 64, predictions_sha256="c" * 64)
    assert again == stated
    assert integrity.check_metrics(stated, again) is None


def test_a_plan_of_a_few_draws_is_not_followed():
    """Figures of fewer than 100 replicates are computed with 100, so that the plan that was stated is named."""
    stated = dataclasses.replace(evaluation_with(), plan=Plan(replicates=1, seed=PLAN.seed))
    again = integrity.recompute(stated, predictions_with(), INFO, package_digest="a" * 64, predictions_sha256="c" * 64)
    assert again.plan.replicates == 100
    assert "plan.replicates = 1" in integrity.check_metrics(stated, again).message


@pytest.mark.parametrize(
    ("name", "of", "field", "value", "place"),
    [
        ("accuracy", None, "value", 0.95, "overall.accuracy.value = 0.95"),
        ("accuracy", None, "value", math.nan, "overall.accuracy.value = nan"),
        ("accuracy", None, "bound", None, "overall.accuracy.bound = None"),
        ("ece", None, "bound", 0.01, "overall.ece.bound = 0.01"),
        ("sensitivity", "meningioma", "low", 0.89, "per_class.meningioma.sensitivity.low = 0.89"),
        ("specificity", "glioma", "successes", 200, "per_class.glioma.specificity.successes = 200"),
    ],
)
def test_an_edited_figure_is_named(name, of, field, value, place):
    """A figure that was edited is named with what it says and what the predictions give."""
    stated = evaluation_with()
    if of is None:
        figure = dataclasses.replace(getattr(stated.overall, name), **{field: value})
        edited = dataclasses.replace(stated, overall=dataclasses.replace(stated.overall, **{name: figure}))
    else:
        per_class = [
            dataclasses.replace(c, **{name: dataclasses.replace(getattr(c, name), **{field: value})})
            if c.name == of else c
            for c in stated.per_class
        ]  # fmt: skip
        edited = dataclasses.replace(stated, per_class=tuple(per_class))
    objection = integrity.check_metrics(edited, stated)
    assert objection.what == "metrics"
    assert place in objection.message


def test_other_edits_of_an_evaluation_are_named():
    """Counts, classes, digests and the confusion matrix are compared too."""
    stated = evaluation_with()
    confusion = ((91, 9, 0), *stated.confusion[1:])
    for change, place in [
        ({"n": 3000}, "n = 3000"),
        ({"package_digest": "9" * 64}, "package_digest"),
        ({"confusion": confusion}, "confusion.0.0 = 91"),
        ({"per_class": stated.per_class[1:]}, "per_class"),
    ]:
        assert place in integrity.check_metrics(dataclasses.replace(stated, **change), stated).message


def test_the_last_digit_is_forgiven():
    """Another processor may sum in another order."""
    stated = evaluation_with()
    value = math.nextafter(stated.overall.ece.value, 1)
    figure = dataclasses.replace(stated.overall.ece, value=value)
    assert integrity.check_metrics(
        dataclasses.replace(stated, overall=dataclasses.replace(stated.overall, ece=figure)), stated
    ) is None  # fmt: skip


def test_predictions_of_what_is_at_hand(predictions):
    """Predictions of this package on this test set raise no objection."""
    assert origin(predictions) is None


@pytest.mark.parametrize(
    ("at_hand", "what"),
    [
        ({"package_digest": "9" * 64}, "package"),
        ({"test_fingerprint": "9" * 64}, "test_set"),
        ({"split_fingerprint": "9" * 64}, "split"),
        ({"info": dataclasses.replace(INFO, classes=CLASSES[::-1])}, "classes"),
    ],
)
def test_predictions_of_something_else_are_named(predictions, at_hand, what):
    """Predictions of another package, test set, split or order of classes are named as such."""
    assert origin(predictions, **at_hand).what == what


def test_predictions_that_do_not_say(predictions):
    """Predictions that do not say what they are of are of nothing."""
    assert "is of package none" in origin(dataclasses.replace(predictions, package_digest="")).message


def test_the_table_has_every_test_image(predictions, dataset):
    """A table with each test image, its patient and its label raises no objection."""
    assert integrity.check_rows(predictions, *dataset) is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda p: dataclasses.replace(p, y_true=p.y_pred), "y_true of row 9 "),
        (lambda p: dataclasses.replace(p, image_ids=p.image_ids[::-1]), "image_id of row 0 "),
        (lambda p: dataclasses.replace(p, patient_keys=(None,) * 30), "patient_key of row 0 "),
        (lambda p: dataclasses.replace(p, image_ids=p.image_ids[1:]), "has 29 rows"),
    ],
)  # fmt: skip
def test_rows_that_were_touched_are_named(predictions, dataset, change, place):
    """A label, patient or image that was changed, and a hard case that was left out, are named."""
    objection = integrity.check_rows(change(predictions), *dataset)
    assert objection.what == "predictions"
    assert place in objection.message


def test_scores_that_are_scored_again(predictions):
    """Scores that the package gives again pass; one that it does not is named by its row, as is a NaN."""
    sample = np.array([3, 9, 20])
    assert integrity.check_scores(predictions, sample, predictions.y_score[sample] + 1e-4) is None
    other = predictions.y_score[sample].copy()
    other[1] = (0.4, 0.3, 0.3)
    assert "1 of 3 images" in integrity.check_scores(predictions, sample, other).message
    assert "row 9" in integrity.check_scores(predictions, sample, other).message
    other[1] = np.nan
    assert "row 9" in integrity.check_scores(predictions, sample, other).message


def test_the_sample_cannot_be_foreseen():
    """All of a small table is scored again; of a large one another 128 rows each time."""
    assert integrity.choose_sample(50).tolist() == list(range(50))
    one, other = integrity.choose_sample(10_000), integrity.choose_sample(10_000)
    assert len(set(one)) == len(set(other)) == 128
    assert one.tolist() != other.tolist()
