"""The options that steps share, and the settings that come out of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from medvision.config import Config

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML settings; config/config.yaml if not given.")]
Dataset = Annotated[str | None, typer.Option(help="Name of a file in config/datasets/.")]
DatasetPath = Annotated[Path | None, typer.Option(help="Folder of class folders, or of split folders of them.")]
PatientPattern = Annotated[
    str | None, typer.Option(help="Regular expression on file names; its groups name the patient.")
]
OnLeak = Annotated[str | None, typer.Option(help="Leaking training rows: drop, regroup (split anew) or fail.")]
Model = Annotated[str | None, typer.Option(help="Name in config/models.yaml, or timm/NAME.")]
Pretrained = Annotated[
    str | None, typer.Option(help="true (from the hub), a file of weights or a folder of them, or false.")
]
Strategy = Annotated[str | None, typer.Option(help="What is trained: head, partial (the last stages) or full.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs at most; early stopping may end sooner.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a batch.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate; the model's own if not given.")]
ImageSize = Annotated[int | None, typer.Option(help="Side of the input, pixels; the model's own if not given.")]
Grayscale = Annotated[str | None, typer.Option(help="true: one input channel, with an adapted first convolution.")]
PolicyName = Annotated[str | None, typer.Option("--policy", help="Name of a policy; staging if not given.")]
Policies = Annotated[Path | None, typer.Option(help="YAML file of policies; config/validation.yaml if not given.")]
Version = Annotated[str | None, typer.Option(help="Semantic version, once each; the next minor one if not given.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, for example training.views=4; repeatable.")]


def configure(
    config: Path | None = None, dataset: str | None = None, assignments: list[str] | None = None, **options: Any
) -> Config:
    """Load the settings; ``options`` are those of a step, by the names that ``SETTINGS`` knows, None if not given."""
    from medvision.config import load_config, parse_overrides

    overrides = parse_overrides(split_assignments(assignments))
    given = {SETTINGS[name]: value for name, value in options.items() if value is not None}
    return load_config(config, dataset=dataset, overrides={**given, **overrides})


def split_assignments(texts: list[str] | None) -> list[str]:
    """Return each KEY=VALUE by itself: one MLproject parameter carries several, separated by blanks.

    A blank inside a value stays: a column may be called "BI RADS".
    """
    parts = [part for text in texts or [] for part in re.split(r"\s+(?=[A-Za-z_][\w.]*=)", text.strip())]
    return [part for part in parts if part]


SETTINGS = {
    "dataset_path": "dataset.path",
    "labels": "dataset.labels",
    "label_pattern": "dataset.label_pattern",
    "label_tag": "dataset.label_tag",
    "window": "dataset.window",
    "patient_pattern": "dataset.patient_pattern",
    "on_leak": "dataset.on_leak",
    "image_size": "transform.image_size",
    "grayscale": "transform.grayscale",
    "model": "training.model",
    "pretrained": "training.pretrained",
    "strategy": "training.strategy",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "lr": "training.lr",
}
