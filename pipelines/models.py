"""Where the files of a model stand: its checkpoints, its package, its results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import Plan

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
    """Return the name in the registry, for example brain-mri-resnet18; MLflow takes no dots in it, as timm's have."""
    return re.sub(r"[^\w-]+", "-", f"{config.dataset_name}-{model_slug(config)}")


def with_model(config: Config, name: str) -> Config:
    """Return the settings of another model of the same dataset."""
    return config.model_copy(update={"training": config.training.model_copy(update={"model": name})})


def trained_package(config: Config) -> Path:
    """Return the folder of the model's package; ConfigInvalid, with the command that makes it, if there is none."""
    from medvision.errors import ConfigInvalid

    name, folder = config.training.model, outputs_dir(config) / PACKAGE
    if not (folder / "package.json").is_file():
        raise ConfigInvalid(
            f"{name} is not trained yet: {folder} is missing. Run: medvision train --model {name}, with the options of "
            "the dataset."
        )
    return folder


def check_new_name(config: Config) -> None:
    """Raise ConfigInvalid for a name that a trained model could have, or that no folder should have."""
    from medvision.errors import ConfigInvalid
    from medvision.models.catalog import load_catalog

    name = config.training.model
    if name in load_catalog() or "/" in name or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigInvalid(
            f"{name!r} can't be the name: expected 1 to 64 letters, digits, dots, dashes or underscores that name no "
            "architecture of config/models.yaml."
        )


def plan_of(config: Config) -> Plan:
    """Return how intervals are computed."""
    from medvision.records import Plan

    return Plan(config.evaluation.replicates, config.evaluation.seed)
