"""What the pictures of an evaluation share: colours, panels, names, the title, and files that are whole or absent."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvision.evaluation.wording import describe_cases, shorten
from medvision.files import atomic_write
from medvision.records import Evaluation
from medvision.records import Figure as Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart with every kind of colour blindness. Without their yellow, which white swallows.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILION = _COLORS[:2]
_STYLES = ("-", "--", "-.")
# 4.5 : 1 on white, as texts need it.
GRAY = "#767676"
_COLUMNS = 4


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    # Not pyplot, which keeps every figure and looks for a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panels(n: int, *, side: float = 2.5, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure with n small axes, at most four in a row, of one scale across and, with ``share_y``, upwards."""
    columns = min(n, _COLUMNS)
    rows = -(-n // columns)
    figure = new_figure(max(side * columns, 5), side * rows + 1)
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False).flat)
    for spare in grid[n:]:
        spare.remove()
    for axes in grid[:n]:
        _quiet(axes)
    for axes in _lowest(grid[:n]):
        axes.tick_params(labelbottom=True)
    return figure, grid[:n]


def class_panels(k: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with the axes of each of k classes: the same for all while the colours last, else small ones."""
    if k > len(_COLORS):
        return panels(k)
    figure = new_figure(6, 5.4 + 0.22 * k)
    axes = figure.add_subplot()
    _quiet(axes)
    return figure, [axes] * k


def color(i: int) -> str:
    """Return the colour of the i-th thing in a picture; they repeat after seven."""
    return _COLORS[i % len(_COLORS)]


def style(c: int, k: int) -> dict[str, Any]:
    """Return colour and kind of line of class c of k for matplotlib: all alike where each class has its own axes."""
    c = c if k <= len(_COLORS) else 0
    return {"color": _COLORS[c], "linestyle": _STYLES[c % len(_STYLES)]}


def name_axes(classes: Sequence[Axes], x: str, y: str) -> None:
    """Name the axes, of small ones the outermost."""
    for axes in _lowest(classes):
        axes.set_xlabel(x)
    for axes in classes[::_COLUMNS]:
        axes.set_ylabel(y)


def name_lines(figure: Figure, classes: Sequence[Axes]) -> None:
    """Say what the lines of ``class_panels`` are: in one legend, or above each of the small axes."""
    if all(axes is classes[0] for axes in classes):
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
        return
    for axes in classes:
        _, labels = axes.get_legend_handles_labels()
        lines = [textwrap.fill(line, 34) for label in labels for line in label.split(": ")]
        axes.set_title("\n".join(lines), fontsize=8)


def plain(name: str, longest: int = 28) -> str:
    """Return a name from the data as matplotlib draws it: no formula between dollars, no label that it hides."""
    short = shorten(name, longest)
    # A label that begins with an underscore is left out of legends.
    return f" {short}".replace("$", r"\$") if short.startswith("_") else short.replace("$", r"\$")


def with_interval(figure: Interval) -> str:
    """Return a figure and its interval as text."""
    if figure.value is None:
        return "not defined"
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    return f"{figure.value:.3f}{interval}"


def whiskers(
    axes: Axes, figures: Sequence[Interval], rows: np.ndarray, shade: str, called: str, marker: str = "o"
) -> None:
    """Draw figures with their intervals, one a row."""
    values = np.array([(each.value, each.low, each.high) for each in figures], dtype=float)
    # At 0 and 1 rounding can put an end of the interval a hair past the value.
    widths = np.nan_to_num(np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None))
    axes.errorbar(values[:, 0], rows, xerr=widths, fmt=marker, color=shade, label=called, capsize=3, markersize=6)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write the names of rows beside them, the first on top, with lines to read values by."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def finish(figure: Figure, what: str, evaluation: Evaluation, path: Path) -> None:
    """Set the title, which says what is drawn and of which cases, and save the figure as PNG."""
    subject = f"{plain(evaluation.model, 60)} on {plain(evaluation.dataset, 40)}"
    save(figure, f"{what}\n{subject}\n{describe_cases(evaluation)}", path)


def save(figure: Figure, title: str, path: Path) -> None:
    """Set a title and save the figure as PNG, whole or not at all."""
    figure.suptitle(title, fontsize=10)
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=150, bbox_inches="tight", pad_inches=0.15))


def _lowest(grid: Sequence[Axes]) -> Sequence[Axes]:
    return grid[-min(len(grid), _COLUMNS) :]


def _quiet(axes: Axes) -> None:
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
