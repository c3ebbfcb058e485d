"""What an evaluation tells beside its figures, from the same predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from medvision.evaluation.bootstrap import point_values
from medvision.evaluation.conformal import conformal_figures, prediction_sets
from medvision.evaluation.intervals import delong
from medvision.evaluation.operating_point import figures_at
from medvision.evaluation.predictions import Predictions
from medvision.evaluation.selective import abstain_by_sets, risk_coverage, select_at_coverage
from medvision.models.ensemble import sharpen
from medvision.records import (
    Abstention,
    ConformalFigures,
    Details,
    Evaluation,
    OperatingPoint,
    OperatingPointFigures,
    PackageInfo,
)

_UNCALIBRATED = ("ece", "brier", "nll")
_COVERAGES = (0.7, 0.8, 0.9)


def describe_details(
    evaluation: Evaluation, predictions: Predictions, info: PackageInfo, *, prevalence: Mapping[str, float], looks: int
) -> Details:
    """Return calibration before the temperature, and what the package's decisions would have done on the test split.

    ``prevalence``: share of a class where the model will be used; of a class that is not in it, that of the test split.
    """
    y_true, y_score, groups = predictions.y_true, predictions.y_score, predictions.groups
    curve = risk_coverage(y_true, y_score)
    conformal: ConformalFigures | None = None
    abstention: Abstention | None = None
    if info.conformal is not None:
        conformal = conformal_figures(info.conformal, y_true, y_score, groups)
        abstention = abstain_by_sets(y_true, prediction_sets(y_score, info.conformal), groups)
    return Details(
        package_digest=evaluation.package_digest,
        predictions_sha256=evaluation.predictions_sha256,
        looks=looks,
        uncalibrated=_uncalibrated(predictions, info.combination.temperature),
        operating_points=tuple(_at(point, predictions, prevalence) for point in info.operating_points),
        conformal=conformal,
        abstention=abstention,
        selections=tuple(select_at_coverage(y_true, y_score, groups, coverage) for coverage in _COVERAGES),
        aurc=curve.aurc,
        excess_aurc=curve.excess_aurc,
        disagreement_auroc=_disagreement_auroc(predictions),
    )


def _disagreement_auroc(predictions: Predictions) -> float | None:
    """Return how well the members' disagreement tells wrong from right predictions; None without either, or members."""
    is_wrong = predictions.y_pred != predictions.y_true
    if predictions.disagreement is None or is_wrong.all() or not is_wrong.any():
        return None
    return delong(is_wrong, predictions.disagreement).auroc


def _uncalibrated(predictions: Predictions, temperature: float) -> dict[str, float]:
    plain = dataclasses.replace(predictions, y_score=sharpen(predictions.y_score, 1 / temperature))
    values = point_values(plain)
    return {name: values[name] for name in _UNCALIBRATED}


def _at(point: OperatingPoint, predictions: Predictions, prevalence: Mapping[str, float]) -> OperatingPointFigures:
    c = predictions.classes.index(point.class_name)
    is_class = predictions.y_true == c
    share = prevalence.get(point.class_name, float(is_class.mean()))
    return figures_at(point, is_class, predictions.y_score[:, c], predictions.groups, prevalence=share)
