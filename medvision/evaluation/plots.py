"""The confusion matrix and the figures of each class as pictures, saved atomically as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medvision.evaluation.canvas import BLUE, VERMILION, finish, name_rows, new_figure, plain, whiskers
from medvision.records import Evaluation


def plot_confusion(evaluation: Evaluation, path: Path) -> None:
    """Draw the confusion matrix, rows = truth: counts, and their share of the row as percentage and shade."""
    counts = np.array(evaluation.confusion)
    shares = counts / counts.sum(axis=1, keepdims=True)
    side = 2.6 + 0.8 * len(evaluation.classes)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column, row, f"{count}\n{shares[row, column]:.0%}", ha="center", va="center", fontsize=9,
            color="white" if shares[row, column] > 0.55 else "black",
        )  # fmt: skip
    ticks, names = range(len(evaluation.classes)), [plain(name) for name in evaluation.classes]
    axes.set_xticks(ticks, names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    finish(figure, "Confusion matrix", evaluation, path)


def plot_per_class(evaluation: Evaluation, path: Path) -> None:
    """Draw sensitivity and specificity of each class with their 95 % intervals."""
    figure = new_figure(7.5, 2.1 + 0.55 * len(evaluation.classes))
    axes = figure.add_subplot()
    rows = np.arange(len(evaluation.classes))
    whiskers(axes, [each.sensitivity for each in evaluation.per_class], rows - 0.13, BLUE, "sensitivity")
    whiskers(axes, [each.specificity for each in evaluation.per_class], rows + 0.13, VERMILION, "specificity", "s")
    labels = [f"{plain(figures.name)} (n = {figures.n})" for figures in evaluation.per_class]
    name_rows(axes, labels)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("value, with 95 % interval")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    finish(figure, "Sensitivity and specificity of each class", evaluation, path)
