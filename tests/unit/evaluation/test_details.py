"""What an evaluation tells beside its figures, and how it is told."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medvision.evaluation.details import describe_details
from medvision.evaluation.details_report import render_details
from medvision.evaluation.details_tables import describe_tables
from medvision.evaluation.diversity import disagreement, pairwise_diversity
from medvision.evaluation.paired import draw
from medvision.evaluation.predictions import load_predictions, save_predictions
from medvision.evaluation.robustness import describe_fall, select_figures
from medvision.records import (
    Combination,
    CrossValidation,
    Details,
    Member,
    PackageInfo,
    Plan,
    Preprocessing,
    Robustness,
    load_record,
    save_record,
)

CLASSES = ("glioma", "meningioma", "pituitary")


def package(temperature=1.0):
    member = Member("tiny", {}, Preprocessing(8, 3, (0,), (1,)), 1.0, "run", 1, 0.5)
    lineage = dict.fromkeys(("manifest_fingerprint", "split_fingerprint", "run_key"), "x")
    return PackageInfo(
        name="p", dataset="d", classes=CLASSES, members=(member,), combination=Combination(temperature=temperature),
        operating_points=(), conformal=None, **lineage,
    )  # fmt: skip


@pytest.fixture
def tested(predictions, as_predictions, tmp_path):
    """Return predictions as an evaluation has them: saved and loaded."""
    save_predictions(tmp_path / "p.parquet", as_predictions(*predictions(), groups=np.arange(300) // 3))
    return load_predictions(tmp_path / "p.parquet")


@pytest.fixture
def evaluated(tested, evaluate):
    return evaluate(tested.y_true, tested.y_score, groups=np.arange(300) // 3)


@pytest.fixture
def describe(evaluated):
    def make(tested, temperature=1.0):
        return describe_details(evaluated, tested, package(temperature), prevalence={}, looks=1)

    return make


@pytest.mark.parametrize(("n_patients", "said"), [(100, "by patient;"), (None, "by image, since patients are unknown")])
def test_folds_say_what_they_keep_together(tested, evaluated, describe, n_patients, said):
    """A cross-validation says whether its folds keep patients together, or know of none."""
    pooled = replace(evaluated, n_patients=n_patients)
    figures = dict.fromkeys(("accuracy", "balanced_accuracy", "auroc"), 0.9)
    details = replace(describe(tested), cross_validation=CrossValidation((), figures, figures, pooled))
    (note,) = (table.note for table in describe_tables(details) if table.title == "Cross-validation")
    assert said in note


def test_a_temperature_of_one_changes_nothing(tested, evaluated, describe):
    """At T = 1 the figures before calibration are those after it, to the last digit that is kept."""
    found = describe(tested).uncalibrated
    for name in ("ece", "brier", "nll"):
        assert float(f"{found[name]:.10g}") == getattr(evaluated.overall, name).value


def test_a_temperature_changes_the_figures_before_it(tested, evaluated, describe):
    """At another temperature they are those of other scores."""
    assert describe(tested, 2.0).uncalibrated["ece"] != pytest.approx(evaluated.overall.ece.value, abs=1e-3)


def test_disagreement_that_tells_wrong_answers(tested, describe, tmp_path):
    """Its AUROC is that of wrong against right predictions; it stands in the record and in the text."""
    members = np.random.default_rng(0).dirichlet((1, 1, 1), (3, 300))
    found = describe(replace(tested, disagreement=disagreement(members)))
    expected = roc_auc_score(tested.y_pred != tested.y_true, disagreement(members))
    assert found.disagreement_auroc == pytest.approx(expected)
    save_record(found, tmp_path / "details.json")
    assert load_record(Details, tmp_path / "details.json") == found
    pairs = pairwise_diversity(("a", "b", "c"), members, tested.y_true)
    assert f"an AUROC of {expected:.3f}" in describe_tables(replace(found, diversity=pairs))[0].note


def test_no_disagreement_no_area(tested, describe):
    """One member has none, and without an error, or a right answer, there is nothing to tell apart."""
    assert describe(tested).disagreement_auroc is None
    for truth in (tested.y_pred, (tested.y_pred + 1) % 3):
        faultless = replace(tested, y_true=truth, disagreement=np.linspace(0, 1, 300))
        assert describe(faultless).disagreement_auroc is None


def test_falls_are_told_with_their_interval(predictions, as_predictions, tested, describe):
    """At severities 3 and 5 the fall of the balanced accuracy has its interval; the class that loses most is named."""
    good = draw(tested, Plan(200))
    y_true, y_score = predictions()
    y_score[y_true == 1] = [1, 0, 0]
    bad = draw(as_predictions(y_true, y_score, groups=np.arange(300) // 3), Plan(200))
    falls = tuple(describe_fall("noise", severity, good, bad) for severity in range(1, 6))
    details = replace(describe(tested), robustness=Robustness(300, select_figures(good), falls))
    _, table = describe_tables(details)
    assert table.header == ("fall at severity", "3", "5", "class that loses most")
    fall, lost = falls[2].falls["balanced_accuracy"], falls[4].falls["sensitivity.meningioma"].value
    told = f"{fall.value:+.3f} ({fall.low:.3f} to {fall.high:.3f})"
    assert table.rows == (("noise", told, told, f"meningioma {lost:+.3f}"),)


def test_falls_of_a_record_without_severities(tested, describe):
    """A record of one severity, or of figures without classes, is told as far as it goes."""
    fall = describe_fall("noise", 1, draw(tested, Plan(100)), draw(tested, Plan(100)))
    details = replace(describe(tested), robustness=Robustness(300, fall.values, (fall,)))
    assert describe_tables(details)[1].rows == (("noise", "-"),)


def test_the_text_says_how_often_the_test_set_was_used(tested, evaluated, describe):
    """Once is one time, twice are times."""
    details = describe(tested)
    assert render_details(details, evaluated).endswith("This test set has been looked at 1 time.\n")
    again = render_details(replace(details, looks=2), evaluated)
    assert again.endswith("This test set has been looked at 2 times.\n")
