"""The curves of an evaluation: discrimination, calibration, confidence, and what decisions are worth.

Each function draws one picture from the predictions and saves it atomically as PNG. Lines are for the eye; the figures
with their intervals stand in the Evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvision.evaluation.calibration import reliability
from medvision.evaluation.canvas import (
    BLUE,
    GRAY,
    VERMILION,
    class_panels,
    finish,
    name_axes,
    name_lines,
    new_figure,
    panels,
    plain,
    style,
    with_interval,
)
from medvision.evaluation.decision_curve import decision_curve
from medvision.evaluation.operating_point import is_called
from medvision.evaluation.predictions import Predictions
from medvision.evaluation.selective import risk_coverage
from medvision.models.ensemble import sharpen
from medvision.records import DecisionCurve, Evaluation, OperatingPoint, ReliabilityBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_roc(predictions: Predictions, evaluation: Evaluation, points: Sequence[OperatingPoint], path: Path) -> None:
    """Draw sensitivity against 1 - specificity of each class, one against the rest, and the operating points."""
    from sklearn.metrics import roc_curve

    figure, classes = class_panels(len(evaluation.classes))
    for c, (axes, figures) in enumerate(zip(classes, evaluation.per_class, strict=True)):
        false, true, _ = roc_curve(predictions.y_true == c, predictions.y_score[:, c])
        label = f"{plain(figures.name)}: AUROC {with_interval(figures.auroc)}"
        axes.plot(false, true, **style(c, len(classes)), label=label)
    for point in points:
        c = evaluation.classes.index(point.class_name)
        _mark(classes[c], _rates(predictions, c, point.threshold), style(c, len(classes))["color"], point)
    for axes in dict.fromkeys(classes):
        axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
    _unit_square(classes)
    name_axes(classes, "1 - specificity", "sensitivity")
    name_lines(figure, classes)
    finish(figure, "ROC curve of each class against all others", evaluation, path)


def plot_precision_recall(predictions: Predictions, evaluation: Evaluation, path: Path) -> None:
    """Draw PPV against sensitivity of each class, and its prevalence: the PPV of calling at random."""
    from sklearn.metrics import precision_recall_curve

    figure, classes = class_panels(len(evaluation.classes))
    for c, (axes, figures) in enumerate(zip(classes, evaluation.per_class, strict=True)):
        is_case = predictions.y_true == c
        ppv, sensitivity, _ = precision_recall_curve(is_case, predictions.y_score[:, c])
        label = f"{plain(figures.name)}: AUPRC {with_interval(figures.auprc)}, prevalence {is_case.mean():.3f}"
        # In steps, as AUPRC counts them: between two thresholds there is no model.
        axes.plot(sensitivity, ppv, **style(c, len(classes)), drawstyle="steps-post", label=label)
        axes.axhline(is_case.mean(), color=style(c, len(classes))["color"], linewidth=0.8, alpha=0.7)
    _unit_square(classes)
    name_axes(classes, "sensitivity (recall)", "PPV (precision)")
    name_lines(figure, classes)
    finish(figure, "Precision and recall; thin lines: prevalence", evaluation, path)


def plot_reliability(
    predictions: Predictions, evaluation: Evaluation, temperature: float, uncalibrated_ece: float, path: Path
) -> None:
    """Draw how often predictions are right against their confidence, before and after temperature scaling.

    ``temperature`` is the one that made the scores: before it they were softmax(temperature * log score), and their ECE
    was ``uncalibrated_ece``, as the details say.
    """
    figure = new_figure(8, 5)
    y_true, groups = predictions.y_true, predictions.groups
    before = reliability(y_true, sharpen(predictions.y_score, 1 / temperature), groups).top_label
    after = reliability(y_true, predictions.y_score, groups).top_label
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    start = min(_start(before), _start(after))
    for axes, bins in ((left, before), (right, after)):
        _draw_bins(axes, bins, start)
    left.set_title(f"before temperature scaling\nECE {uncalibrated_ece:.3f}", fontsize=10)
    right.set_title(f"after it (T = {temperature:.3g})\nECE {with_interval(evaluation.overall.ece)}", fontsize=10)
    name_axes([left, right], "confidence: the highest score", "share of right predictions, with 95 % interval")
    finish(figure, f"Reliability diagram, {len(after)} bins of about equal size", evaluation, path)


def plot_confidence(predictions: Predictions, evaluation: Evaluation, path: Path) -> None:
    """Draw the confidence of right and of wrong predictions of each true class, each as share of its own number."""
    figure, classes = panels(len(evaluation.classes))
    confidence, is_right = predictions.y_score.max(axis=1), predictions.y_pred == predictions.y_true
    edges = np.linspace(1 / len(classes), 1, 16)
    for c, (axes, name) in enumerate(zip(classes, evaluation.classes, strict=True)):
        right, wrong = (confidence[(predictions.y_true == c) & each] for each in (is_right, ~is_right))
        axes.stairs(_shares(right, edges), edges, color=BLUE, alpha=0.35, fill=True, label="right predictions")
        axes.stairs(_shares(wrong, edges), edges, color=VERMILION, linewidth=1.8, label="wrong predictions")
        axes.set_title(f"{plain(name)}\n{len(right)} right, {len(wrong)} wrong", fontsize=9)
    name_axes(classes, "confidence", "share")
    figure.legend(*classes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    finish(figure, "Confidence (the highest score) where predictions are right, and wrong", evaluation, path)


def plot_risk_coverage(predictions: Predictions, evaluation: Evaluation, path: Path) -> None:
    """Draw the share of errors among the cases that are answered if only the most confident ones are."""
    curve, (figure, (axes, *_)) = risk_coverage(predictions.y_true, predictions.y_score), class_panels(1)
    rank = np.arange(1, len(predictions.y_true) + 1)
    best = np.maximum(rank - (predictions.y_pred == predictions.y_true).sum(), 0) / rank
    error = curve.risk[-1]
    axes.plot(curve.coverage, curve.risk, color=BLUE, label=f"by confidence: mean {curve.aurc:.3f} (AURC)")
    axes.plot(
        rank / len(rank), best, color=GRAY, linestyle="--",
        label=f"if every error were less confident than every right answer: mean {curve.aurc - curve.excess_aurc:.3f}",
    )  # fmt: skip
    axes.axhline(error, color=GRAY, linestyle=":", label=f"all cases answered, or any of them: {error:.3f}")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, max(1.1 * curve.risk.max(), 0.01))
    name_axes([axes], "coverage: share of cases answered, most confident first", "risk: share of errors among them")
    name_lines(figure, [axes])
    finish(figure, "Risk and coverage", evaluation, path)


def plot_decision_curves(
    predictions: Predictions, evaluation: Evaluation, class_names: Sequence[str], path: Path
) -> None:
    """Draw the net benefit of acting on the score of each class that is named; at least one is."""
    # Net benefit is at most the prevalence: a rare class needs a scale of its own.
    figure, classes = panels(len(class_names), side=3.2 if len(class_names) < 4 else 2.5, share_y=False)
    for axes, name in zip(classes, class_names, strict=True):
        _draw_benefit(axes, _decision_curve(predictions, evaluation, name))
    name_axes(classes, "acting from this probability on", "net benefit")
    figure.legend(*classes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    finish(figure, "Decision curve: net benefit in true positives per case, with 95 % band", evaluation, path)


def _unit_square(classes: list[Axes]) -> None:
    for axes in classes:
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_box_aspect(1)


def _rates(predictions: Predictions, c: int, threshold: float) -> tuple[float, float]:
    is_case, called = predictions.y_true == c, is_called(predictions.y_score[:, c], threshold)
    return float(called[~is_case].mean()), float(called[is_case].mean())


def _mark(axes: Axes, place: tuple[float, float], color: str, point: OperatingPoint) -> None:
    label = f"operating point: {plain(point.class_name)} from {point.threshold:.3g} on"
    axes.plot(*place, "o", color=color, markeredgecolor="black", markersize=9, label=label)


def _start(bins: Sequence[ReliabilityBin]) -> float:
    """Return from where on the axes are needed: where a model is sure, all bins would crowd in one corner."""
    lowest = min(min(each.mean_score, each.observed.low or 0.0) for each in bins)
    return np.floor(10 * lowest) / 10


def _draw_bins(axes: Axes, bins: Sequence[ReliabilityBin], start: float) -> None:
    observed = np.array([(each.observed.value, each.observed.low, each.observed.high) for each in bins], dtype=float)
    widths = [observed[:, 0] - observed[:, 1], observed[:, 2] - observed[:, 0]]
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
    axes.errorbar(
        [each.mean_score for each in bins], observed[:, 0], yerr=widths, fmt="o-", color=BLUE, capsize=2, markersize=4,
        linewidth=1, elinewidth=0.8,
    )  # fmt: skip
    margin = 0.03 * (1 - start)
    axes.set_xlim(start - margin, 1 + margin)
    axes.set_ylim(start - margin, 1 + margin)
    axes.set_box_aspect(1)
    axes.grid(color="#dddddd", linewidth=0.8)


def _shares(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    # In float32 a third is less than a third, and a sum of probabilities more than 1.
    return np.histogram(np.clip(confidence, edges[0], edges[-1]), edges)[0] / max(len(confidence), 1)


def _decision_curve(predictions: Predictions, evaluation: Evaluation, name: str) -> DecisionCurve:
    c = evaluation.classes.index(name)
    is_class, score = predictions.y_true == c, predictions.y_score[:, c]
    return decision_curve(name, is_class, score, predictions.units, evaluation.plan)


def _draw_benefit(axes: Axes, curve: DecisionCurve) -> None:
    axes.fill_between(curve.thresholds, curve.low, curve.high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(curve.thresholds, curve.net_benefit, color=BLUE, label="act on the model")
    axes.plot(curve.thresholds, curve.treat_all, color=VERMILION, linestyle="--", label="act on everybody")
    axes.axhline(0, color="black", linewidth=1, linestyle=":", label="act on nobody")
    axes.set_title(plain(curve.class_name), fontsize=9)
    # Of a class that is never called, and rarer than the lowest threshold, no line is above 0.
    highest = max(*curve.high, *curve.treat_all, 0.001)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.3 * highest, 1.1 * highest)
