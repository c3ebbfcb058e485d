"""Every figure of an Evaluation, against scikit-learn, scipy, or a count by hand."""

import numpy as np
import pytest

from medvision.errors import DataInvalid
from medvision.records import Evaluation, load_record, save_record

SEEDS = range(5)


def _mann_whitney_auroc(is_case, y_score):
    from scipy.stats import mannwhitneyu

    cases, others = y_score[is_case], y_score[~is_case]
    return mannwhitneyu(cases, others).statistic / (len(cases) * len(others))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [2, 3, 6])
def test_accuracy_and_confusion(predictions, evaluate, k, seed):
    """Accuracy, balanced accuracy and the confusion matrix are scikit-learn's."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

    y_true, y_score = predictions(k=k, seed=seed)
    y_pred = y_score.argmax(axis=1)
    evaluation = evaluate(y_true, y_score, [f"class{c}" for c in range(k)])
    assert evaluation.accuracy.value == pytest.approx(accuracy_score(y_true, y_pred))
    assert evaluation.balanced_accuracy == pytest.approx(balanced_accuracy_score(y_true, y_pred))
    assert np.array_equal(evaluation.confusion, confusion_matrix(y_true, y_pred))


@pytest.mark.parametrize("seed", SEEDS)
def test_sensitivity_and_specificity(predictions, evaluate, seed):
    """Sensitivity is the recall of the class, specificity the recall of all others taken together."""
    from sklearn.metrics import recall_score

    y_true, y_score = predictions(seed=seed)
    y_pred = y_score.argmax(axis=1)
    for c, figures in enumerate(evaluate(y_true, y_score).per_class):
        assert figures.sensitivity.value == pytest.approx(recall_score(y_true == c, y_pred == c))
        assert figures.specificity.value == pytest.approx(recall_score(y_true != c, y_pred != c))
        assert figures.n == figures.sensitivity.n == (y_true == c).sum()
        assert figures.specificity.n == (y_true != c).sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_auroc_is_the_mann_whitney_statistic(predictions, evaluate, seed):
    """The AUROC of a class is the chance that a case scores above a counter-case; the overall one is their mean."""
    y_true, y_score = predictions(seed=seed)
    evaluation = evaluate(y_true, y_score)
    expected = [_mann_whitney_auroc(y_true == c, y_score[:, c]) for c in range(3)]
    assert [figures.auroc for figures in evaluation.per_class] == pytest.approx(expected)
    assert evaluation.auroc == pytest.approx(np.mean(expected))


def test_auroc_counts_ties_half(evaluate):
    """A model that gives every image the same score has an AUROC of one half."""
    y_true = np.array([0, 0, 1, 1, 1])
    assert evaluate(y_true, np.full((5, 2), 0.5), ["no", "yes"]).auroc == 0.5


def test_binary_auroc_is_that_of_the_second_class(predictions, evaluate):
    """Of two classes, the AUROC is that of class 1."""
    y_true, y_score = predictions(k=2)
    expected = _mann_whitney_auroc(y_true == 1, y_score[:, 1])
    assert evaluate(y_true, y_score, ["no", "yes"]).auroc == pytest.approx(expected)


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
