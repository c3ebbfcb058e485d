"""Pictures of a comparison: accuracy, all figures side by side, accuracy against size, and speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvision.evaluation.canvas import color, name_rows, new_figure, plain, save, whiskers
from medvision.evaluation.wording import describe_cases, label
from medvision.records import ComparedModel, Comparison

if TYPE_CHECKING:
    pass

_FIGURES = ("balanced_accuracy", "macro_f1", "auroc", "auprc")


def plot_comparison(comparison: Comparison, folder: Path) -> None:
    """Draw the four pictures into a folder."""
    models, cases = comparison.models, _cases(comparison)
    _plot_accuracy(models, cases, folder / "accuracy_comparison.png")
    _plot_metrics(models, cases, folder / "multi_metric_comparison.png")
    _plot_size(models, cases, folder / "accuracy_vs_size.png")
    _plot_speed(models, folder / "inference_speed.png")


def _cases(comparison: Comparison) -> str:
    first = comparison.models[0].evaluation
    return f"{plain(first.dataset, 40)}, {describe_cases(first)}"


def _plot_accuracy(models: Sequence[ComparedModel], cases: str, path: Path) -> None:
    figure = new_figure(7.5, 1.8 + 0.5 * len(models))
    axes = figure.add_subplot()
    for name, offset, c in (("accuracy", -0.12, 0), ("balanced_accuracy", 0.12, 1)):
        shown = [getattr(model.evaluation.overall, name) for model in models]
        whiskers(axes, shown, np.arange(len(models)) + offset, color(c), label(name))
    name_rows(axes, [plain(model.name) for model in models])
    axes.set_xlabel("value, with 95 % interval")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, f"Accuracy of {len(models)} models\n{cases}", path)


def _plot_metrics(models: Sequence[ComparedModel], cases: str, path: Path) -> None:
    figure = new_figure(3.0 * len(_FIGURES), 1.8 + 0.42 * len(models))
    for axes, name in zip(figure.subplots(1, len(_FIGURES), sharey=True), _FIGURES, strict=True):
        shown = [getattr(model.evaluation.overall, name) for model in models]
        whiskers(axes, shown, np.arange(len(models)), color(0), label(name))
        axes.set_title(label(name), fontsize=9)
        name_rows(axes, [plain(model.name) for model in models])
    save(figure, f"{len(models)} models, with 95 % intervals\n{cases}", path)


def _plot_size(models: Sequence[ComparedModel], cases: str, path: Path) -> None:
    figure = new_figure(7, 4.6)
    axes = figure.add_subplot()
    for i, model in enumerate(models):
        found, millions = model.evaluation.overall.balanced_accuracy, model.speed.n_parameters / 1e6
        if found.value is None:
            continue
        errors = (
            None if found.low is None or found.high is None else [[found.value - found.low], [found.high - found.value]]
        )
        axes.errorbar([millions], [found.value], yerr=errors, fmt="o", color=color(i), capsize=3, markersize=7)
        # Neighbours in rank, which are the likeliest to be near, have their names on different sides.
        x, side = (8, "left") if i % 2 == 0 else (-8, "right")
        axes.annotate(
            plain(model.name), (millions, found.value), (x, 5), textcoords="offset points", fontsize=8, ha=side,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )  # fmt: skip
    axes.set_xscale("log")
    # Not powers of ten, which are hard to read between 5 and 90 millions.
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
    axes.margins(x=0.25)
    axes.set_xlabel("parameters, millions")
    axes.set_ylabel("balanced accuracy, with 95 % interval")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, f"Accuracy and size\n{cases}", path)


def _plot_speed(models: Sequence[ComparedModel], path: Path) -> None:
    figure = new_figure(9, 1.8 + 0.45 * len(models))
    latency, throughput = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(models))
    latency.barh(rows, [model.speed.latency.p50_ms for model in models], color=color(0), height=0.5, label="p50")
    tails = [model.speed.latency.p95_ms for model in models]
    latency.plot(tails, rows, "|", color="black", markersize=14, markeredgewidth=2, label="p95")
    latency.set_xlabel("latency of one image, ms")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    throughput.barh(rows, [model.speed.throughput_images_s for model in models], color=color(2), height=0.5)
    throughput.set_xlabel("throughput at the best batch, images a second")
    for axes in (latency, throughput):
        name_rows(axes, [plain(model.name) for model in models])
        axes.set_xlim(left=0)
    save(figure, f"Speed, decoding not counted\n{models[0].speed.hardware}", path)
