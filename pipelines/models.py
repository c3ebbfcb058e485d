"""Where the files of a model stand: its checkpoints, its package, its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medvision.config import Config

PACKAGE = "package"
EVALUATION_FILE = "evaluation_metrics.json"
DETAILS_FILE = "evaluation_details.json"
PREDICTIONS_FILE = "predictions.parquet"
VERDICT_FILE = "medical_validation.json"
ENVELOPE_FILE = "medical_validation.dsse.json"


def model_slug(config: Config) -> str:
    """Return the model's name as part of a path: timm/resnet10t becomes timm-resnet10t."""
    return config.training.model.replace("/", "-")


def outputs_dir(config: Config) -> Path:
    """Return the folder of the model's checkpoints and package."""
    return config.paths.checkpoints / f"{model_slug(config)}_outputs"


def results_dir(config: Config) -> Path:
    """Return the folder of the model's evaluation and verdict."""
    return config.paths.results / model_slug(config)


def registered_name(config: Config) -> str:
    """Return the name in the registry, for example brain-mri-resnet18."""
    return f"{config.dataset_name}-{model_slug(config)}"
