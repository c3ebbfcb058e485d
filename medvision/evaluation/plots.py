"""Pictures of an evaluation. Each function draws one figure of its own and saves it atomically as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvision.files import atomic_write
from medvision.records import Evaluation, Proportion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart with every kind of colour blindness; the markers differ as well.
BLUE, VERMILION = "#0072B2", "#D55E00"


def plot_confusion(evaluation: Evaluation, path: Path) -> None:
    """Draw the confusion matrix, rows = truth: counts, and their share of the row as percentage and shade."""
    counts = np.array(evaluation.confusion)
    shares = counts / counts.sum(axis=1, keepdims=True)
    side = 2.6 + 0.8 * len(evaluation.classes)
    figure, axes = _figure(side + 0.8, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column, row, f"{count}\n{shares[row, column]:.0%}", ha="center", va="center", fontsize=9,
            color="white" if shares[row, column] > 0.55 else "black",
        )  # fmt: skip
    ticks = range(len(evaluation.classes))
    axes.set_xticks(ticks, evaluation.classes, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, evaluation.classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    _finish(figure, axes, evaluation, path)


def plot_per_class(evaluation: Evaluation, path: Path) -> None:
    """Draw sensitivity and specificity of each class with their 95 % intervals."""
    figure, axes = _figure(7.5, 1.9 + 0.55 * len(evaluation.classes))
    _whiskers(axes, [figures.sensitivity for figures in evaluation.per_class], -0.13, BLUE, "o", "sensitivity")
    _whiskers(axes, [figures.specificity for figures in evaluation.per_class], 0.13, VERMILION, "s", "specificity")
    labels = [f"{figures.name} (n = {figures.n})" for figures in evaluation.per_class]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("value, with 95 % Wilson interval")
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _finish(figure, axes, evaluation, path)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # Not pyplot, which keeps every figure and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _whiskers(axes: Axes, proportions: list[Proportion], offset: float, color: str, marker: str, label: str) -> None:
    values = np.array([(p.value, p.low, p.high) for p in proportions])
    # At 0 and 1 rounding can put an end of the interval a hair past the value.
    widths = np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None)
    rows = np.arange(len(values)) + offset
    axes.errorbar(values[:, 0], rows, xerr=widths, fmt=marker, color=color, label=label, capsize=3, markersize=6)


def _finish(figure: Figure, axes: Axes, evaluation: Evaluation, path: Path) -> None:
    patients = "" if evaluation.n_patients is None else f" of {evaluation.n_patients} patients"
    title = f"{evaluation.model} on {evaluation.dataset}\ntest split, {evaluation.n} images{patients}"
    axes.set_title(title, fontsize=10)
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=150, bbox_inches="tight", pad_inches=0.15))
