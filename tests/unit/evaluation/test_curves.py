"""Curves show what the figures say; what is drawn is read back from the axes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from medvision.evaluation import curves
from medvision.evaluation.bootstrap import point_values
from medvision.evaluation.curves import (
    plot_confidence,
    plot_decision_curves,
    plot_precision_recall,
    plot_reliability,
    plot_risk_coverage,
    plot_roc,
)
from medvision.evaluation.operating_point import choose_operating_point
from medvision.models.ensemble import sharpen

PLOTS = {
    "roc": lambda predictions, evaluation, path: plot_roc(predictions, evaluation, (), path),
    "precision_recall": plot_precision_recall,
    "reliability": lambda predictions, evaluation, path: plot_reliability(predictions, evaluation, 1.5, 0.1, path),
    "confidence": plot_confidence,
    "risk_coverage": plot_risk_coverage,
    "decision": lambda predictions, evaluation, path: plot_decision_curves(
        predictions, evaluation, evaluation.classes, path
    ),
}


@pytest.fixture(params=PLOTS)
def plot(request):
    return PLOTS[request.param]


@pytest.fixture
def drawn(monkeypatch):
    """Return the figures that are drawn from here on, each before it is saved."""
    figures, finish = [], curves.finish

    def keep(figure, what, evaluation, path):
        figures.append(figure)
        finish(figure, what, evaluation, path)

    monkeypatch.setattr(curves, "finish", keep)
    return figures


@pytest.fixture
def study(predictions, as_predictions, evaluate):
    """Return predictions of patients with three images each, and their evaluation."""
    y_true, y_score = predictions()
    groups = np.arange(len(y_true)) // 3
    return as_predictions(y_true, y_score, groups=groups), evaluate(y_true, y_score, groups=groups)


def texts(figure):
    """Return all that is written in a figure outside of its axes' ticks."""
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    titles = [axes.get_title() for axes in figure.axes]
    return "\n".join([figure.get_suptitle(), *titles, *legends])


@pytest.mark.parametrize("k", [2, 4, 14])
@pytest.mark.filterwarnings("error")
def test_draws_a_picture(plot, k, predictions, as_predictions, evaluate, tmp_path):
    """The picture is a PNG that shows something, for two classes and for many, and nothing else is left."""
    y_true, y_score = predictions(k=k)
    names = [f"class number {c}" for c in range(k)]
    plot(as_predictions(y_true, y_score, names), evaluate(y_true, y_score, names), tmp_path / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 10


@pytest.mark.parametrize("scores", ["perfect", "wrong", "equal", "never called"])
@pytest.mark.filterwarnings("error")
def test_strange_models(plot, scores, as_predictions, evaluate, tmp_path):
    """Three cases, of a model that is always right, always wrong, undecided, or never calls a class, are drawn."""
    y_true, names = np.array([0, 1, 2]), ["$x_{", "_hidden", "a very long name of a class that has no end"]
    y_score = {
        "perfect": np.eye(3),
        "wrong": np.eye(3)[[1, 2, 0]],
        "equal": np.full((3, 3), 1 / 3),
        "never called": np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.5, 0.5, 0.0]]),
    }[scores]
    plot(as_predictions(y_true, y_score, names), evaluate(y_true, y_score, names), tmp_path / "figure.png")


def test_title_says_what_was_evaluated(plot, study, drawn, tmp_path):
    """Model, dataset, split and numbers of images and patients stand in the title."""
    plot(*study, tmp_path / "figure.png")
    assert "resnet18 on phantom\ntest split, 300 images, 100 patients" in drawn[0].get_suptitle()


def test_area_under_the_roc_curve(study, drawn, tmp_path):
    """The line of each class encloses its AUROC, which stands in the legend with its interval."""
    predictions, evaluation = study
    plot_roc(predictions, evaluation, (), tmp_path / "roc.png")
    lines = {line.get_label(): line.get_xydata() for line in drawn[0].axes[0].lines}
    for c, figures in enumerate(evaluation.per_class):
        interval = f"{figures.auroc.value:.3f} ({figures.auroc.low:.3f} to {figures.auroc.high:.3f})"
        line = lines[f"{figures.name}: AUROC {interval}"]
        assert auc(*line.T) == pytest.approx(roc_auc_score(predictions.y_true == c, predictions.y_score[:, c]))


def test_operating_point_is_on_its_curve(study, drawn, tmp_path):
    """The mark of an operating point stands at its specificity and sensitivity on test."""
    predictions, evaluation = study
    is_class, score = predictions.y_true == 1, predictions.y_score[:, 1]
    point = choose_operating_point("meningioma", is_class, score, predictions.groups, target_sensitivity=0.7)
    plot_roc(predictions, evaluation, (point,), tmp_path / "roc.png")
    mark = next(line for line in drawn[0].axes[0].lines if "operating point: meningioma" in line.get_label())
    called = score >= point.threshold
    assert mark.get_xydata()[0] == pytest.approx((called[~is_class].mean(), called[is_class].mean()))


def test_area_under_the_steps_of_precision(study, drawn, tmp_path):
    """The steps of each class enclose its average precision, and a line shows its prevalence."""
    predictions, evaluation = study
    plot_precision_recall(predictions, evaluation, tmp_path / "precision_recall.png")
    lines = drawn[0].axes[0].lines
    for c, figures in enumerate(evaluation.per_class):
        line = next(line for line in lines if line.get_label().startswith(f"{figures.name}: AUPRC"))
        recall, precision = line.get_xydata().T
        expected = average_precision_score(predictions.y_true == c, predictions.y_score[:, c])
        assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(expected)
        prevalence = (predictions.y_true == c).mean()
        assert any(np.allclose(line.get_ydata(), prevalence) for line in lines)


def test_reliability_before_and_after(study, drawn, tmp_path):
    """Both errors are named, as the evaluation and the details have them; the details' is that of the plain scores."""
    predictions, evaluation = study
    plain = replace(predictions, y_score=sharpen(predictions.y_score, 0.5))
    plot_reliability(predictions, evaluation, 2.0, point_values(plain)["ece"], tmp_path / "reliability.png")
    before, after = (axes.get_title() for axes in drawn[0].axes)
    assert f"ECE {evaluation.overall.ece.value:.3f} (" in after
    powers = predictions.y_score.astype(float) ** 2
    scores = powers / powers.sum(axis=1, keepdims=True)
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == predictions.y_true
    gaps = [
        (confidence[part].mean() - right[part].mean()) * len(part)
        for part in np.array_split(np.argsort(confidence), 15)
    ]
    assert float(before.split("ECE ")[1]) == pytest.approx(np.abs(gaps).sum() / 300, abs=6e-4)


def test_whiskers_of_the_bins(study, drawn, tmp_path):
    """The groups of the diagram hold all images, and their whiskers lie within 0 and 1."""
    plot_reliability(*study, 1.0, 0.1, tmp_path / "reliability.png")
    for axes in drawn[0].axes:
        ends = np.concatenate([np.array(segment)[:, 1] for segment in axes.collections[0].get_segments()])
        assert len(ends) == 30
        assert 0 <= ends.min() < ends.max() <= 1


def test_confidence_counts_right_and_wrong(study, drawn, tmp_path):
    """Above each class stands how many of its images are right and wrong, as in the confusion matrix."""
    predictions, evaluation = study
    plot_confidence(predictions, evaluation, tmp_path / "confidence.png")
    for c, axes in enumerate(drawn[0].axes):
        right = evaluation.confusion[c][c]
        wrong = sum(evaluation.confusion[c]) - right
        assert axes.get_title() == f"{evaluation.classes[c]}\n{right} right, {wrong} wrong"


def test_confidence_shares(study, drawn, tmp_path):
    """The bars of the right predictions of a class, and those of the wrong ones, sum to 1."""
    plot_confidence(*study, tmp_path / "confidence.png")
    for axes in drawn[0].axes:
        assert [patch.get_data().values.sum() for patch in axes.patches] == pytest.approx([1, 1])


def test_confidence_of_an_undecided_model(as_predictions, evaluate, drawn, tmp_path):
    """Equal scores, which float32 rounds to less than 1 / k, are counted as well."""
    y_true, y_score = np.array([0, 1, 2]), np.full((3, 3), 1 / 3, dtype=np.float32) - 1e-7
    plot_confidence(as_predictions(y_true, y_score), evaluate(y_true, y_score), tmp_path / "confidence.png")
    shares = [patch.get_data().values.sum() for axes in drawn[0].axes for patch in axes.patches]
    assert shares == [1, 0, 0, 1, 0, 1]


def test_risk_at_full_coverage(study, drawn, tmp_path):
    """At full coverage the risk is the share of errors, also of the perfect order of the same errors."""
    predictions, evaluation = study
    plot_risk_coverage(predictions, evaluation, tmp_path / "risk.png")
    curve, best, _ = drawn[0].axes[0].lines
    error = 1 - evaluation.overall.accuracy.value
    np.testing.assert_allclose([curve.get_xydata()[-1], best.get_xydata()[-1]], [(1, error)] * 2)


@pytest.mark.parametrize("named", [("glioma", "meningioma", "pituitary"), ("pituitary",)])
def test_decision_curves_of_named_classes(named, study, drawn, tmp_path):
    """The curves of the classes that are named are drawn, and of no other."""
    predictions, evaluation = study
    plot_decision_curves(predictions, evaluation, named, tmp_path / "decision.png")
    assert [axes.get_title() for axes in drawn[0].axes] == list(named)


def test_acting_on_everybody(study, drawn, tmp_path):
    """Net benefit of acting on everybody is prevalence - (1 - prevalence) * odds (Vickers and Elkin 2006)."""
    predictions, evaluation = study
    plot_decision_curves(predictions, evaluation, ("glioma",), tmp_path / "decision.png")
    line = next(line for line in drawn[0].axes[0].lines if line.get_label() == "act on everybody")
    p, prevalence = line.get_xdata(), (predictions.y_true == 0).mean()
    np.testing.assert_allclose(line.get_ydata(), prevalence - (1 - prevalence) * p / (1 - p))


@pytest.mark.filterwarnings("error")
def test_decision_curve_of_a_rare_class(as_predictions, evaluate, tmp_path):
    """A class rarer than the lowest threshold that is never called, so that no line rises above 0, is drawn."""
    y_true = np.zeros(300, dtype=int)
    y_true[0] = 1
    y_score = np.tile([1.0, 0.0], (300, 1))
    classes = ("common", "rare")
    data = as_predictions(y_true, y_score, classes), evaluate(y_true, y_score, classes)
    plot_decision_curves(*data, ("rare",), tmp_path / "decision.png")


def test_many_classes_have_axes_of_their_own(predictions, as_predictions, evaluate, drawn, tmp_path):
    """More classes than colours are drawn side by side, each with its name and its figure above."""
    y_true, y_score = predictions(k=9)
    names = [f"class number {c}" for c in range(9)]
    evaluation = evaluate(y_true, y_score, names)
    plot_roc(as_predictions(y_true, y_score, names), evaluation, (), tmp_path / "roc.png")
    assert len(drawn[0].axes) == 9
    for axes, figures in zip(drawn[0].axes, evaluation.per_class, strict=True):
        assert axes.get_title().startswith(f"{figures.name}\nAUROC {figures.auroc.value:.3f}")


def test_figures_are_not_kept(plot, study, tmp_path, monkeypatch):
    """No figure is left to pyplot, which would keep it for ever."""
    import matplotlib.pyplot as plt

    plot(*study, Path(tmp_path) / "figure.png")
    assert plt.get_fignums() == []
