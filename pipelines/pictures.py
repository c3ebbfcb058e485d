"""Draw every picture of an evaluation into the model's folder of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.models import results_dir
from pipelines.scoring import open_images

if TYPE_CHECKING:
    import numpy as np

    from medvision.config import Config
    from medvision.data.cache import ImageRows
    from medvision.evaluation.predictions import Predictions
    from medvision.records import Details, Evaluation, Preprocessing
    from pipelines.dataset import SplitDataset
    from pipelines.scoring import Scored


def draw_pictures(
    evaluation: Evaluation,
    details: Details,
    predictions: Predictions,
    scored: Scored,
    dataset: SplitDataset,
    config: Config,
) -> tuple[str, ...]:
    """Draw and return the names of the files."""
    from medvision.evaluation import curves, plots

    folder, info = results_dir(config), scored.info
    critical = tuple(point.class_name for point in info.operating_points)
    plots.plot_confusion(evaluation, folder / "confusion_matrix.png")
    plots.plot_per_class(evaluation, folder / "per_class_metrics.png")
    curves.plot_roc(predictions, evaluation, info.operating_points, folder / "roc_curve.png")
    curves.plot_precision_recall(predictions, evaluation, folder / "precision_recall_curve.png")
    curves.plot_reliability(
        predictions,
        evaluation,
        info.combination.temperature,
        details.uncalibrated["ece"],
        folder / "reliability_diagram.png",
    )
    curves.plot_confidence(predictions, evaluation, folder / "confidence_distribution.png")
    curves.plot_risk_coverage(predictions, evaluation, folder / "risk_coverage.png")
    curves.plot_decision_curves(predictions, evaluation, critical or info.classes, folder / "decision_curve.png")
    _plot_mistakes(evaluation, predictions, scored, dataset, config)
    return PICTURES


# What shows patients, and may show what is burned into their images.
WITH_IMAGES = ("worst_mistakes.png",)
PICTURES = (
    "confusion_matrix.png",
    "per_class_metrics.png",
    "roc_curve.png",
    "precision_recall_curve.png",
    "reliability_diagram.png",
    "confidence_distribution.png",
    "risk_coverage.png",
    "decision_curve.png",
    "worst_mistakes.png",
)


def _plot_mistakes(
    evaluation: Evaluation, predictions: Predictions, scored: Scored, dataset: SplitDataset, config: Config
) -> None:
    from medvision.evaluation.explain import package_saliency
    from medvision.evaluation.mistakes import plot_worst_mistakes

    info, rows = scored.info, dataset.split.indices("test")

    def inputs(form: Preprocessing) -> ImageRows:
        return open_images(form, rows, dataset, config)

    def image_at(position: int) -> np.ndarray:
        largest = max((member.preprocessing for member in info.members), key=lambda form: form.image_size)
        return inputs(largest)[position : position + 1][0]

    def map_at(position: int, class_index: int) -> np.ndarray:
        return package_saliency(info, scored.networks, inputs, position, class_index)

    plot_worst_mistakes(predictions, evaluation, image_at, map_at, results_dir(config) / "worst_mistakes.png")
