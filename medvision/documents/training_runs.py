"""The runs that trained a package: their settings, and what MLflow holds of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medvision.config import Config
from medvision.models.licences import StartingWeights, describe_starting_weights
from medvision.records import PackageInfo
from medvision.registry.answers import translated
from medvision.tracking.journal import Journal, outbox
from medvision.tracking.mlflow_sink import RUN_KEY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# What decides the weights. The rest is about machines, accounts and servers.
_SECTIONS = ("dataset", "transform", "training", "evaluation", "performance")
_PRIVATE = ("dataset.path", "dataset.labels")
# A name in timm's catalogue, and no path.
_HUB_MODEL = re.compile(r"timm/[A-Za-z0-9_.]+")


@dataclass(frozen=True)
class TrainingRun:
    """A run that trained a network; ``settings`` has no path of the machine in it."""

    run_key: str
    run_id: str
    settings: dict[str, str]
    git_commit: str | None
    git_dirty: str | None


def run_keys(info: PackageInfo) -> list[str]:
    """Return the keys of the runs that trained the networks of a package, each once."""
    return list(dict.fromkeys(member.run_key for member in info.members))


def find_training_runs(client: MlflowClient, info: PackageInfo) -> list[TrainingRun]:
    """Return the training runs of a package that MLflow knows, in the order of its networks."""
    found = [(key, run) for key in run_keys(info) for run in search_runs(client, f"tags.`{RUN_KEY_TAG}` = '{key}'")]
    return [_training_run(key, run) for key, run in found]


def search_runs(client: MlflowClient, wanted: str) -> Iterator[Run]:
    """Yield the newest run of all experiments that a filter finds, if there is one."""
    with translated(client):
        experiments = [found.experiment_id for found in client.search_experiments()]
        found = client.search_runs(experiments, wanted, order_by=["attributes.start_time DESC"], max_results=1)
    yield from found


def describe_weights(config: Config, info: PackageInfo, runs: list[TrainingRun]) -> tuple[StartingWeights, ...]:
    """Return what each network of a package started from, by its run in MLflow, or by the journal that is here."""
    told = {run.run_key: run.settings.get("training.pretrained") for run in runs}
    return tuple(
        describe_starting_weights(
            member.model,
            str(member.architecture.get("timm_name", "")),
            told.get(member.run_key) or _journal_setting(config.paths.state, member.run_key),
        )
        for member in info.members
    )


def _training_run(key: str, run: Run) -> TrainingRun:
    tags = run.data.tags
    return TrainingRun(
        run_key=key,
        run_id=run.info.run_id,
        settings={
            name: _without_place(value)
            for name, value in sorted(run.data.params.items())
            if name.partition(".")[0] in _SECTIONS and name not in _PRIVATE
        },
        git_commit=tags.get("mlflow.source.git.commit"),
        git_dirty=tags.get("medvision.git_dirty"),
    )


def _without_place(value: str) -> str:
    """Return a setting, of whatever may be a path only the last part: the rest names machines, accounts, patients."""
    return value if _HUB_MODEL.fullmatch(value) else re.split(r"[/\\]", value.rstrip("/\\"))[-1]


def _journal_setting(state: Path, run_key: str) -> str | None:
    """Return how a training's weights were asked for, by its journal; None if it ran elsewhere."""
    folder = outbox(state) / run_key
    if not run_key or not folder.is_dir():
        return None
    said = [event.content["values"] for event in Journal(folder).events() if event.kind == "params"]
    return next((str(values["training.pretrained"]) for values in said if "training.pretrained" in values), None)
