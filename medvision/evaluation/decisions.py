"""What turns a package's probabilities into decisions, fitted on val and frozen in the package."""

from __future__ import annotations

import dataclasses

import numpy as np

from medvision.config import EvaluationConfig, nearest
from medvision.errors import ConfigInvalid
from medvision.evaluation.calibration import fit_temperature
from medvision.evaluation.conformal import fit_conformal
from medvision.evaluation.operating_point import choose_operating_point
from medvision.evaluation.predictions import Predictions
from medvision.models.ensemble import log_scores, sharpen
from medvision.records import PackageInfo


def fit_decisions(info: PackageInfo, val: Predictions, config: EvaluationConfig) -> PackageInfo:
    """Fit temperature, operating points and prediction sets on val, in this order.

    ``val`` holds the package's scores of val before a temperature is applied. Of what was fitted on val itself, as the
    weights of a stack, they must be those of the folds.

    Raises
    ------
    ConfigInvalid: a critical class that the model does not know.
    OperatingPointUnattainable: no threshold shows the target sensitivity on val.
    """
    check_critical(config, info.classes)
    # As a package computes, which ends in float32: of equal scores none may fall below its own threshold.
    plain = val.y_score.astype(np.float32).astype(np.float64)
    temperature = fit_temperature(log_scores(plain), val.y_true)
    y_score = sharpen(plain, temperature).astype(np.float32)
    points = tuple(
        choose_operating_point(
            name, val.y_true == c, y_score[:, c], val.groups, target_sensitivity=config.target_sensitivity
        )
        for c, name in enumerate(info.classes)
        if name in config.critical_classes
    )
    return dataclasses.replace(
        info,
        combination=dataclasses.replace(info.combination, temperature=temperature),
        operating_points=points,
        conformal=fit_conformal(val.y_true, y_score, val.units, config.coverage),
    )


def check_critical(config: EvaluationConfig, classes: tuple[str, ...]) -> None:
    """Raise ConfigInvalid, naming the nearest class, if a critical class is not among ``classes``."""
    for name in (*config.critical_classes, *config.prevalence):
        if name not in classes:
            raise ConfigInvalid(f"evaluation: the model knows no class {name!r}. {nearest(name, list(classes))}")
