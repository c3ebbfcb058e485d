"""Evidence that was touched is named."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from validation_cases import CLASSES, evaluation_with, predictions_with

from medvision.data.decode import ImageSource, hash_file
from medvision.data.manifest import Manifest
from medvision.data.split import Split
from medvision.errors import DecodeRejected
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
    return Manifest(None, CLASSES, rows, (), 0, (), "", "m"), Split(sides, "m", "s")


def test_recomputed_figures_are_the_stated_ones():
    """The figures that are computed from the same predictions, by the default plan, are those that were stated."""
    stated = evaluation_with(plan=Plan())
    again = recompute()
    assert again == stated
    assert integrity.check_metrics(stated, again) is None


def test_no_file_says_how_it_is_judged():
    """Bounds are of 2000 replicates with seed 42, whatever the file has: a billion of them keep nobody waiting."""
    assert recompute().plan == Plan(2000, 42)
    stated = dataclasses.replace(evaluation_with(plan=Plan()), plan=Plan(10**9, 7))
    assert integrity.check_metrics(stated, recompute()) is None


def test_an_evaluation_of_another_plan_is_held_to_its_values():
    """With other replicates limits are others, and no objection; an edited value or count is one all the same."""
    stated, again = evaluation_with(plan=Plan(100, 7)), recompute()
    assert stated.overall.ece.bound != again.overall.ece.bound
    assert integrity.check_metrics(stated, again) is None
    for change, place in [({"value": 0.95}, "accuracy.value = 0.95"), ({"successes": 299}, "accuracy.successes")]:
        accuracy = dataclasses.replace(stated.overall.accuracy, **change)
        edited = dataclasses.replace(stated, overall=dataclasses.replace(stated.overall, accuracy=accuracy))
        assert place in integrity.check_metrics(edited, again).message


def recompute():
    return integrity.recompute(predictions_with(), INFO, package_digest="a" * 64, predictions_sha256="c" * 64)


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


def test_pixels_are_read_again(tmp_path):
    """A test image that was exchanged is named by its row, one that was trained on is not; what is no image is said."""
    for number in range(3):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / f"{number}.png")
    names = [f"{number}.png" for number in range(3)]
    hashes = [hash_file(ImageSource(tmp_path / name)) for name in names]
    manifest = Manifest(
        tmp_path, CLASSES, pd.DataFrame({"path": names, "frame": 0, "pixel_hash": hashes}), (), 0, (), "", "m"
    )
    split = Split(np.array(["train", "test", "test"]), "m", "s")
    Image.new("L", (8, 8), 99).save(tmp_path / "0.png")
    assert integrity.check_pixels(manifest, split, workers=1) is None
    Image.new("L", (8, 8), 99).save(tmp_path / "2.png")
    found = integrity.check_pixels(manifest, split, workers=1)
    assert (found.what, "1 of 2 test images" in found.message) == ("test_set", True)
    assert found.message.endswith("row 1")
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(DecodeRejected, match="has changed"):
        integrity.check_pixels(manifest, split, workers=1)


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
