"""The Evaluation: which figure has which interval, what is counted, and what is refused."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medvision.errors import DataInvalid
from medvision.evaluation.figures import ERRORS
from medvision.evaluation.intervals import auroc_interval, proportion, wilson
from medvision.records import Evaluation, Plan, load_record, record_fingerprint, save_record

PATIENTS = np.arange(300) // 3


def all_figures(evaluation):
    """Yield (name, figure) of the whole record."""
    for owner in (evaluation.overall, *evaluation.per_class):
        for field in dataclasses.fields(owner):
            if field.name not in ("name", "n", "n_patients"):
                yield field.name, getattr(owner, field.name)


def same(figure, expected):
    """Assert that two figures are one, but for the digits that the record leaves out."""
    found, wanted = dataclasses.astuple(figure), dataclasses.astuple(expected)
    assert found[4:] == wanted[4:]
    assert found[:4] == pytest.approx(wanted[:4], rel=1e-9)


@pytest.mark.parametrize("groups", [None, PATIENTS], ids=["images", "patients"])
@pytest.mark.parametrize("k", [2, 4])
def test_every_figure_is_within_its_limits(predictions, evaluate, k, groups):
    """Each figure has a value inside of its interval, and its bound on the side that harms, inside too."""
    evaluation = evaluate(*predictions(k=k), [f"class{c}" for c in range(k)], groups)
    for name, figure in all_figures(evaluation):
        assert figure.low <= figure.value <= figure.high, name
        if name in (*ERRORS, "calibration_intercept"):
            assert figure.value <= figure.bound <= figure.high, name
        else:
            assert figure.bound <= figure.value, name
        assert figure.method


def test_values_are_those_of_scikit_learn(predictions, evaluate):
    """The values of the record are scikit-learn's under the names of the record."""
    from sklearn import metrics as sk

    y_true, y_score = predictions()
    evaluation, y_pred = evaluate(y_true, y_score, groups=PATIENTS), y_score.argmax(axis=1)
    assert evaluation.overall.accuracy.value == pytest.approx(sk.accuracy_score(y_true, y_pred))
    assert evaluation.overall.weighted_f1.value == pytest.approx(sk.f1_score(y_true, y_pred, average="weighted"))
    assert np.array_equal(evaluation.confusion, sk.confusion_matrix(y_true, y_pred))
    for c, figures in enumerate(evaluation.per_class):
        assert figures.sensitivity.value == pytest.approx(sk.recall_score(y_true == c, y_pred == c))
        assert figures.specificity.value == pytest.approx(sk.recall_score(y_true != c, y_pred != c))
        assert figures.ppv.value == pytest.approx(sk.precision_score(y_true == c, y_pred == c))
        assert figures.npv.value == pytest.approx(sk.precision_score(y_true != c, y_pred != c))
        assert figures.auroc.value == pytest.approx(sk.roc_auc_score(y_true == c, y_score[:, c]))
        assert figures.auprc.value == pytest.approx(sk.average_precision_score(y_true == c, y_score[:, c]))


def test_what_is_counted(predictions, evaluate):
    """Proportions say how many of how many images; a class says its images and its patients."""
    y_true, y_score = predictions()
    y_pred = y_score.argmax(axis=1)
    evaluation = evaluate(y_true, y_score, groups=PATIENTS)
    assert (evaluation.n, evaluation.n_patients) == (300, 100)
    for c, figures in enumerate(evaluation.per_class):
        assert figures.n == figures.sensitivity.n == (y_true == c).sum()
        assert figures.n_patients == len(np.unique(PATIENTS[y_true == c]))
        assert figures.specificity.n == (y_true != c).sum()
        assert (figures.ppv.n, figures.npv.n) == ((y_pred == c).sum(), (y_pred != c).sum())
        assert figures.ppv.successes == figures.sensitivity.successes == ((y_pred == c) & (y_true == c)).sum()


def test_methods_where_patients_are_unknown(predictions, evaluate):
    """Images are counted: Wilson for proportions, DeLong for the AUROC of a class, the image bootstrap for the rest."""
    y_true, y_score = predictions()
    evaluation = evaluate(y_true, y_score)
    assert evaluation.n_patients is None
    for c, figures in enumerate(evaluation.per_class):
        same(figures.sensitivity, proportion(y_score[y_true == c].argmax(axis=1) == c))
        same(figures.auroc, auroc_interval(y_true == c, y_score[:, c].astype(np.float64)))
        assert figures.n_patients is None
        assert figures.f1.method == figures.auprc.method == "image bootstrap, 200 replicates"
    assert evaluation.overall.accuracy.method == "Wilson"
    assert evaluation.overall.auroc.method == "image bootstrap, 200 replicates"


def test_methods_where_patients_are_known(predictions, evaluate):
    """Patients are counted everywhere: by the patient bootstrap, and for calibration by the sandwich."""
    for name, figure in all_figures(evaluate(*predictions(), groups=PATIENTS)):
        by_sandwich = name.startswith("calibration")
        expected = "Wald, sandwich by patient" if by_sandwich else "patient bootstrap, 200 replicates"
        assert figure.method == expected, name


def test_two_classes_have_the_auroc_of_the_second(predictions, evaluate):
    """Of two classes the overall AUROC and AUPRC are those of class 1, with its interval."""
    for groups in (None, PATIENTS):
        evaluation = evaluate(*predictions(k=2), ["no", "yes"], groups)
        assert evaluation.overall.auroc == evaluation.per_class[1].auroc
        assert evaluation.overall.auprc == evaluation.per_class[1].auprc


def test_repeated_images_of_a_patient_add_nothing(predictions, evaluate):
    """Ten copies of every image leave intervals by patient as they were, and shrink those by image."""
    y_true, y_score = predictions(n=90)
    rows = np.repeat(np.arange(90), 10)
    for groups, same in ((np.arange(90), True), (None, False)):
        once = evaluate(y_true, y_score, groups=groups).overall
        tenfold = evaluate(y_true[rows], y_score[rows], groups=None if groups is None else rows).overall
        for name in ("accuracy", "auroc", "brier"):
            width, shrunk = (getattr(each, name).high - getattr(each, name).low for each in (once, tenfold))
            assert (shrunk == pytest.approx(width)) is same, name
            assert same or shrunk < width / 2


def test_images_without_a_patient_are_patients(predictions, evaluate):
    """Where some patients are known, an image whose patient is unknown is a patient of its own."""
    groups = [None if i < 100 else i // 2 for i in range(300)]
    assert evaluate(*predictions(), groups=groups).n_patients == 200


@pytest.mark.parametrize("groups", [None, PATIENTS], ids=["images", "patients"])
def test_same_input_same_record(predictions, evaluate, groups):
    """Predictions evaluated twice give one record, to the last bit."""
    first, second = (evaluate(*predictions(), groups=groups) for _ in range(2))
    assert record_fingerprint(first) == record_fingerprint(second)


def test_same_record_on_another_processor():
    """Threads and instructions that the linear algebra uses change no digit of the record."""
    code = (
        "import numpy as np, conftest; from medvision.records import record_fingerprint; "
        "given = conftest.predictions(n=3000, k=4); "
        "print(record_fingerprint(conftest.evaluate(*given, 'abcd', np.arange(3000) // 2)))"
    )
    processors = ({"OPENBLAS_CORETYPE": "Nehalem"}, {"OPENBLAS_CORETYPE": "Haswell"}, {"OMP_NUM_THREADS": "2"})
    found = {
        subprocess.check_output(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", **processor},
            text=True,
        )
        for processor in processors
    }
    assert len(found) == 1


def test_the_plan_is_kept_and_decides(predictions, evaluate):
    """Another seed gives other limits, and the record says which plan they are of."""
    first, second = (evaluate(*predictions(), groups=PATIENTS, plan=Plan(200, seed)) for seed in (1, 2))
    assert first.plan == Plan(200, 1)
    assert first.overall.auroc.value == second.overall.auroc.value
    assert first.overall.auroc.low != second.overall.auroc.low


def test_bounds_of_proportions_are_no_simulation(predictions, evaluate):
    """Another seed leaves the bounds that a gate holds against sensitivity and specificity as they are."""
    first, second = (evaluate(*predictions(), groups=PATIENTS, plan=Plan(200, seed)) for seed in (1, 2))
    for one, two in zip(first.per_class, second.per_class, strict=True):
        assert (one.sensitivity.bound, one.specificity.bound) == (two.sensitivity.bound, two.specificity.bound)


def test_a_faultless_model_is_not_certain(evaluate):
    """A model that is right on all images of 20 patients a class has bounds of 20 patients, and not 1."""
    groups = np.arange(300) // 5
    evaluation = evaluate(groups % 3, np.eye(3)[groups % 3], groups=groups)
    for figures in evaluation.per_class:
        assert figures.sensitivity.bound == pytest.approx(0.05 ** (1 / 20))
        assert figures.auroc.bound == figures.f1.bound == pytest.approx(0.05 ** (1 / 20))
        assert figures.calibration_slope.value is None
    overall = evaluation.overall
    assert overall.accuracy.bound == pytest.approx(0.05 ** (1 / 60))
    assert overall.balanced_accuracy.bound == overall.auroc.bound == pytest.approx(0.05 ** (1 / 20))
    assert overall.ece.bound == pytest.approx(1 - 0.05 ** (1 / 20))
    assert overall.balanced_accuracy.low == pytest.approx(wilson(20, 20).low)


def test_a_class_that_is_never_predicted(predictions, evaluate):
    """Its PPV is not defined, in value, interval and bound; its sensitivity is 0."""
    y_true, y_score = predictions()
    y_score = y_score * np.array([1e-3, 1, 1])
    y_score /= y_score.sum(axis=1, keepdims=True)
    for groups in (None, PATIENTS):
        figures = evaluate(y_true, y_score, groups=groups).per_class[0]
        ppv = figures.ppv
        assert (ppv.value, ppv.low, ppv.high, ppv.bound, ppv.n) == (None, None, None, None, 0)
        assert (figures.sensitivity.value, figures.f1.value) == (0, 0)


def test_a_class_of_too_few_patients_has_no_bootstrap(predictions, evaluate):
    """A class that many draws miss, being of one patient with more images of another class, has no AUROC."""
    y_true = np.concatenate([[0, 1, 1], 1 + np.arange(87) // 3 % 2])
    figures = evaluate(y_true, predictions(n=90)[1], groups=np.arange(90) // 3)
    assert figures.per_class[0].auroc.value is None
    assert figures.per_class[0].auroc.method == "not defined in more than 10 % of the replicates"
    assert figures.per_class[0].sensitivity.value is not None
    assert figures.overall.balanced_accuracy.value is None
    assert figures.overall.accuracy.value is not None


def test_a_single_patient(predictions, evaluate):
    """Of one patient there are values, and intervals that say that nothing is known."""
    evaluation = evaluate(*predictions(), groups=np.zeros(300, int))
    assert evaluation.n_patients == 1
    assert (evaluation.overall.auroc.low, evaluation.overall.auroc.high) == (0, 1)
    assert evaluation.overall.accuracy.bound <= 0.05
    assert evaluation.overall.brier.low is None


@pytest.mark.parametrize("groups", [None, [0, 1, 2], [0, 0, 0]])
def test_one_image_a_class(evaluate, groups):
    """The smallest test split has a record, with intervals as wide as it deserves."""
    evaluation = evaluate(np.arange(3), np.eye(3), groups=groups)
    assert evaluation.overall.accuracy.value == 1
    assert evaluation.overall.accuracy.low < 0.5


def test_equal_scores_have_an_auroc_of_one_half(evaluate):
    """A model that gives every image the same score has an AUROC of one half, of which it is not sure."""
    figure = evaluate(np.array([0, 0, 1, 1, 1]), np.full((5, 2), 0.5), ["no", "yes"]).overall.auroc
    assert figure.value == 0.5
    assert figure.high - figure.low > 0.5


def test_confusion_rows_are_the_truth(evaluate):
    """A case of class 0 taken for class 2 is counted in row 0, column 2."""
    y_score = np.eye(3)[[2, 1, 2]]
    assert evaluate(np.array([0, 1, 2]), y_score).confusion == ((0, 0, 1), (0, 1, 0), (0, 0, 1))


def test_survives_json(evaluation, tmp_path):
    """An Evaluation is the same after it was saved and loaded."""
    save_record(evaluation, tmp_path / "evaluation.json")
    assert load_record(Evaluation, tmp_path / "evaluation.json") == evaluation


def test_float32_scores_of_many_classes_are_accepted(predictions, evaluate):
    """Rounding in float16 does not make probabilities invalid."""
    y_true, y_score = predictions(k=50, n=500)
    evaluate(y_true, y_score.astype(np.float16).astype(np.float32), [f"class{c}" for c in range(50)])


@pytest.mark.parametrize(
    ("y_true", "y_score", "message"),
    [
        ([0, 1, 2], np.full((3, 3), np.nan), "NaN or infinity in 3 of 3 rows"),
        ([0, 1, 2], np.where(np.eye(3) == 1, np.inf, 0), "NaN or infinity"),
        ([0, 1, 2], np.eye(3) * 2, "sum to 1"),
        ([0, 1, 2], np.array([[2.0, -1, 0], [0, 1, 0], [0, 0, 1]]), "in \\[0, 1\\]"),
        ([0, 1, 2], np.eye(3)[:2], "y_true \\(n,\\)"),
        ([0, 1, 2], np.full((3, 2), 0.5), "y_score \\(n, 3\\)"),
        ([[0, 1, 2]], np.eye(3), "y_true \\(n,\\)"),
        ([0, 1, 3], np.eye(3), "labels from 0 to 2"),
        ([0, 1, -1], np.eye(3), "labels from 0 to 2"),
        ([0.0, 1.0, 2.0], np.eye(3), "integer labels"),
        ([0, 1, 1], np.eye(3), "found none of pituitary"),
        (np.zeros(0, int), np.zeros((0, 3)), "n >= 1"),
    ],
)
def test_invalid_predictions(evaluate, y_true, y_score, message):
    """Predictions that no figure can be trusted on are refused, with what was expected and found."""
    with pytest.raises(DataInvalid, match=message):
        evaluate(np.array(y_true), y_score)


def test_one_class_is_refused(evaluate):
    """An evaluation of a single class is refused: there is nothing to tell apart."""
    with pytest.raises(DataInvalid, match="at least 2 classes"):
        evaluate(np.zeros(3, int), np.ones((3, 1)), ["only"])


def test_one_pair_of_patients_is_the_reason_why_a_loss_has_no_interval(predictions, evaluate):
    """Brier and NLL of a class of one patient vary, but nobody can say by how much; equal scores do not vary."""
    y_true, y_score = predictions(n=40, k=2)
    one = evaluate(np.arange(40) // 39, y_score, ("a", "b"), groups=np.arange(40)).overall
    alike = evaluate(y_true, np.full((40, 2), 0.5), ("a", "b"), groups=np.arange(40)).overall
    for name in ("brier", "nll"):
        assert getattr(one, name).method == "no interval: fewer than two independent pairs"
        assert getattr(alike, name).method == "no interval: no variation"
