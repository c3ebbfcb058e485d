"""Every figure, weighted or not, against scikit-learn or a count by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from medvision.evaluation.figures import ERRORS, N_BINS, OVERALL, PER_CLASS, compute, figure_names, prepare

ECES = ("ece", "classwise_ece")


def figures_of(y_true, y_score, weights=None, units=None):
    """Return every figure by name; class c is called c."""
    units = np.arange(len(y_true)) if units is None else units
    weights = np.ones(units.max() + 1) if weights is None else weights
    values = compute(prepare(y_true, y_score, units), np.atleast_2d(weights).astype(float))
    return dict(zip(figure_names([str(c) for c in range(y_score.shape[1])]), values[0], strict=True))


def sample(predictions, k, seed, digits):
    """Return predictions, rounded so that scores are tied, and integer weights, a third of them 0."""
    y_true, y_score = predictions(n=240, k=k, seed=seed)
    weights = np.random.default_rng(seed).integers(0, 3, 240)
    weights[:k] = 1
    return y_true, np.round(y_score.astype(float), digits), weights


def expected(y_true, y_score, w):
    """Return what scikit-learn says of each figure but ECE."""
    k, y_pred = y_score.shape[1], y_score.argmax(axis=1)
    one_hot = np.eye(k)[y_true]
    wanted = {
        "accuracy": sk.accuracy_score(y_true, y_pred, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y_true, y_pred, sample_weight=w),
        "macro_f1": sk.f1_score(y_true, y_pred, average="macro", sample_weight=w),
        "weighted_f1": sk.f1_score(y_true, y_pred, average="weighted", sample_weight=w),
        "brier": np.average(((y_score - one_hot) ** 2).sum(axis=1), weights=w),
        "nll": sk.log_loss(one_hot, np.clip(y_score, 1e-7, None), sample_weight=w, normalize=True),
    }
    for c in range(k):
        is_case, called, score = y_true == c, y_pred == c, y_score[:, c]
        wanted |= {
            f"sensitivity.{c}": sk.recall_score(is_case, called, sample_weight=w),
            f"specificity.{c}": sk.recall_score(~is_case, ~called, sample_weight=w),
            f"ppv.{c}": sk.precision_score(is_case, called, sample_weight=w),
            f"npv.{c}": sk.precision_score(~is_case, ~called, sample_weight=w),
            f"f1.{c}": sk.f1_score(is_case, called, sample_weight=w),
            f"auroc.{c}": sk.roc_auc_score(is_case, score, sample_weight=w),
            f"auprc.{c}": sk.average_precision_score(is_case, score, sample_weight=w),
        }
    for name in ("auroc", "auprc"):
        wanted[name] = wanted[f"{name}.1"] if k == 2 else np.mean([wanted[f"{name}.{c}"] for c in range(k)])
    return wanted


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("digits", [1, 8])
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
@pytest.mark.filterwarnings("ignore:The y_pred values do not sum to one")
def test_figures_are_those_of_scikit_learn(predictions, k, seed, digits, weighted):
    """Each figure is scikit-learn's, for two classes and four, with and without ties, with and without weights."""
    y_true, y_score, weights = sample(predictions, k, seed, digits)
    y_score = y_score / y_score.sum(axis=1, keepdims=True)
    found = figures_of(y_true, y_score, weights if weighted else None)
    for name, value in expected(y_true, y_score, weights if weighted else None).items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("digits", [1, 8])
def test_a_weight_is_a_repeated_row(predictions, k, digits):
    """An integer weight does what repeating the row does; ECE, whose bins are those of the sample, aside."""
    y_true, y_score, weights = sample(predictions, k, 0, digits)
    rows = np.repeat(np.arange(len(y_true)), weights)
    weighted, repeated = figures_of(y_true, y_score, weights), figures_of(y_true[rows], y_score[rows])
    for name in weighted.keys() - set(ECES):
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-12), name


def ece(score, truth, weights, edges):
    """Return the ECE of one score, bin by bin."""
    bins, total = np.searchsorted(edges, score), 0.0
    for b in np.unique(bins[weights > 0]):
        inside, w = bins == b, weights[bins == b]
        total += w.sum() * abs(np.average(score[inside], weights=w) - np.average(truth[inside], weights=w))
    return total / weights.sum()


@pytest.mark.parametrize("digits", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_ece_is_that_of_its_definition(predictions, seed, digits):
    """ECE is the weighted mean over bins of |mean score - share of cases|, of the prediction and of each class."""
    y_true, y_score, weights = sample(predictions, 3, seed, digits)
    quantiles = np.arange(1, N_BINS) / N_BINS
    found, top = figures_of(y_true, y_score, weights), y_score.max(axis=1)
    right = y_score.argmax(axis=1) == y_true
    assert found["ece"] == pytest.approx(ece(top, right, weights, np.quantile(top, quantiles)))
    each = [ece(p, y_true == c, weights, np.quantile(p, quantiles)) for c, p in enumerate(y_score.T)]
    assert found["classwise_ece"] == pytest.approx(np.mean(each))


def test_bins_have_equal_mass(predictions):
    """Of scores without ties each of the 15 bins holds as many images as the others."""
    y_true, y_score = predictions(n=150)
    top, right = y_score.max(axis=1), y_score.argmax(axis=1) == y_true
    parts = np.array_split(np.argsort(top), N_BINS)
    expected = np.mean([abs(np.mean(top[part]) - np.mean(right[part])) for part in parts])
    assert figures_of(y_true, y_score)["ece"] == pytest.approx(expected, abs=1e-6)


def test_units_carry_the_weight_of_their_images(predictions):
    """The weight of a patient is that of each of the patient's images."""
    y_true, y_score = predictions(n=120)
    patients = np.random.default_rng(0).permutation(np.arange(120) % 40)
    weights = np.random.default_rng(1).integers(1, 4, 40)
    assert figures_of(y_true, y_score, weights, patients) == pytest.approx(
        figures_of(y_true, y_score, weights[patients])
    )


def test_order_of_rows_does_not_matter(predictions):
    """Shuffled predictions have the same figures."""
    y_true, y_score, _ = sample(predictions, 3, 0, 1)
    order = np.random.default_rng(0).permutation(len(y_true))
    assert figures_of(y_true, y_score) == pytest.approx(figures_of(y_true[order], y_score[order]), abs=1e-12)


def test_a_class_that_is_never_predicted(predictions):
    """Its PPV is not defined, its sensitivity and F1 are 0, and figures of other classes keep their values."""
    y_true, y_score = predictions()
    y_score = np.column_stack([y_score[:, 0] * 1e-3, y_score[:, 1:]])
    found = figures_of(y_true, y_score)
    assert np.isnan(found["ppv.0"])
    assert found["sensitivity.0"] == found["f1.0"] == 0
    assert {name for name, value in found.items() if np.isnan(value)} == {"ppv.0"}


def test_a_class_without_weight_has_no_figures(predictions):
    """Where no case of a class is drawn, its sensitivity, AUROC, AUPRC and what averages over them are not defined."""
    y_true, y_score = predictions()
    found = figures_of(y_true, y_score, (y_true != 0).astype(int))
    undefined = {"balanced_accuracy", "auroc", "auprc", "sensitivity.0", "auroc.0", "auprc.0"}
    assert undefined <= {name for name, value in found.items() if np.isnan(value)}
    assert found["accuracy"] == pytest.approx(np.mean((y_score.argmax(axis=1) == y_true)[y_true != 0]))


def test_without_counter_cases_there_is_no_ranking(predictions):
    """Where only cases of a class are drawn, its AUROC, AUPRC and specificity are not defined."""
    y_true, y_score = predictions()
    found = figures_of(y_true, y_score, (y_true == 0).astype(int))
    assert all(np.isnan(found[name]) for name in ("auroc.0", "auprc.0", "specificity.0"))


def test_a_confident_error_is_finite():
    """A probability of 0 for the true class counts as 1e-7 in NLL."""
    found = figures_of(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert found["nll"] == pytest.approx(-np.log(1e-7) / 2)


def test_brier_reaches_two():
    """The Brier score of a model that is always wrong and certain is 2."""
    assert figures_of(np.array([0, 1]), np.eye(2)[[1, 0]])["brier"] == 2


def test_names_are_those_of_the_records():
    """Every figure is a field of OverallFigures or of ClassFigures."""
    from dataclasses import fields

    from medvision.records import ClassFigures, OverallFigures

    assert tuple(field.name for field in fields(OverallFigures)) == OVERALL
    assert set(PER_CLASS) <= {field.name for field in fields(ClassFigures)}
    assert set(ERRORS) <= set(OVERALL)
