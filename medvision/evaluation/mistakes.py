"""The worst mistakes as a sheet of pictures: what they look like, and where the network looked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvision.evaluation.canvas import finish, new_figure, plain
from medvision.evaluation.predictions import Predictions
from medvision.records import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 12
# Pairs of pictures side by side.
_COLUMNS = 3


def worst_mistakes(predictions: Predictions) -> np.ndarray:
    """Return the positions of at most 12 wrong predictions, those of the highest score first."""
    wrong = np.flatnonzero(predictions.y_pred != predictions.y_true)
    confidence = predictions.y_score.max(axis=1)[wrong]
    return wrong[np.argsort(-confidence, kind="stable")][:_SHOWN]


def plot_worst_mistakes(
    predictions: Predictions,
    evaluation: Evaluation,
    image_at: Callable[[int], np.ndarray],
    map_at: Callable[[int, int], np.ndarray],
    path: Path,
) -> None:
    """Draw the most confident mistakes, each as image and as image with the heat map of the predicted class.

    Parameters
    ----------
    image_at: takes a position in the predictions, returns the image, uint8 (H, W, 1 or 3).
    map_at: takes a position and a class index, returns a heat map in [0, 1], (H, W) of any size.

    An image is named by its image_id, a pseudonym, and never by its path.
    """
    positions = worst_mistakes(predictions)
    n_mistakes = int((predictions.y_pred != predictions.y_true).sum())
    if n_mistakes == 0:
        _plot_none(evaluation, path)
        return
    columns = min(_COLUMNS, len(positions))
    rows = -(-len(positions) // columns)
    figure = new_figure(max(4.4 * columns, 5), 2.5 * rows + 1)
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for position, (plainly, explained) in zip(positions.tolist(), grid.reshape(-1, 2), strict=False):
        image, predicted = image_at(position), int(predictions.y_pred[position])
        _draw(plainly, image)
        _draw(explained, image, map_at(position, predicted))
        _caption(plainly, predictions, position)
    title = f"The {len(positions)} most confident of {n_mistakes} mistakes" if n_mistakes > 1 else "The only mistake"
    finish(figure, f"{title}; right: the places that spoke for the prediction", evaluation, path)


def _plot_none(evaluation: Evaluation, path: Path) -> None:
    figure = new_figure(5, 2)
    text = f"No mistake: every one of {evaluation.n} images was classified right."
    figure.text(0.5, 0.3, text, ha="center", fontsize=10)
    finish(figure, "Worst mistakes", evaluation, path)


def _draw(axes: Axes, image: np.ndarray, places: np.ndarray | None = None) -> None:
    height, width = image.shape[:2]
    extent = (0.0, float(width), float(height), 0.0)
    axes.imshow(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image, extent=extent)
    if places is not None:
        # Bare where nothing speaks for the class: the image stays to be read.
        axes.imshow(places, cmap="YlOrRd", vmin=0, vmax=1, alpha=0.6 * np.clip(places, 0, 1), extent=extent)


def _caption(axes: Axes, predictions: Predictions, position: int) -> None:
    truth, predicted = predictions.y_true[position], predictions.y_pred[position]
    score = predictions.y_score[position, predicted]
    text = (
        f"truth: {plain(predictions.classes[truth])}\n"
        f"predicted: {plain(predictions.classes[predicted])}, {score:.3f}\n"
        f"image {plain(predictions.image_ids[position])}"
    )
    axes.set_title(text, fontsize=8, loc="left")
