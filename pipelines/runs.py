"""A model of which only the run is known: its package, its evaluation and its verdict, from here or from MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.fetch import fetch_package
from pipelines.html import REPORT_FILE
from pipelines.models import (
    DETAILS_FILE,
    ENVELOPE_FILE,
    EVALUATION_FILE,
    PACKAGE,
    PREDICTIONS_FILE,
    VERDICT_FILE,
    outputs_dir,
    results_dir,
    with_model,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from medvision.config import Config

# What the steps record, and in which folder of their run.
_RECORDED = {
    "evaluate": ("evaluation", (EVALUATION_FILE, DETAILS_FILE, PREDICTIONS_FILE, REPORT_FILE)),
    "validate": ("validation", (ENVELOPE_FILE, VERDICT_FILE)),
}


def model_of_run(config: Config, run_id: str) -> Config:
    """Return settings whose model is the one that a run trained, with all that is known of it in the project's folders.

    Where it is a model of this project it stays what it is; else package, evaluation and verdict are fetched, and it is
    named after the run. Raises ConfigInvalid for what is no run, or trained nothing.
    """
    from medvision.errors import ConfigInvalid
    from medvision.models.package import load_info
    from medvision.records import record_fingerprint
    from medvision.registry.names import is_run_id

    if not is_run_id(run_id):
        raise ConfigInvalid(f"--run-id expects the 32 digits of a run, as the MLflow UI shows them; found {run_id!r}.")
    settings = fetch_package(config, run_id)
    info = load_info(outputs_dir(settings) / PACKAGE)
    digest = record_fingerprint(info)
    if settings.dataset.name is None and settings.dataset.path is None:
        dataset = settings.dataset.model_copy(update={"name": info.dataset})
        settings = settings.model_copy(update={"dataset": dataset})
    if _is_evaluated(settings, digest):
        return settings
    for folder in sorted(settings.paths.results.glob(f"*/{EVALUATION_FILE}")):
        local = with_model(settings, folder.parent.name)
        if _is_evaluated(local, digest) and _is_package(outputs_dir(local) / PACKAGE, digest):
            say(f"Run {run_id} trained {local.training.model} of this project.")
            return local
    _fetch_results(settings, run_id, digest)
    return settings


def _is_evaluated(config: Config, digest: str) -> bool:
    from medvision.errors import DataInvalid
    from medvision.records import Evaluation, load_record

    try:
        return load_record(Evaluation, results_dir(config) / EVALUATION_FILE).package_digest == digest
    except DataInvalid:
        return False


def _is_package(folder: Path, digest: str) -> bool:
    from medvision.errors import CheckpointCorrupt
    from medvision.models.package import package_digest

    try:
        return package_digest(folder) == digest
    except CheckpointCorrupt:
        return False


def _fetch_results(config: Config, run_id: str, digest: str) -> None:
    """Fetch the newest evaluation of a package, and the newest verdict on it, that MLflow has; what it lacks, lacks."""
    from mlflow import MlflowClient

    from medvision.registry.answers import reaching
    from medvision.tracking.mlflow_sink import tracking_uri

    uri = tracking_uri(config)
    with reaching(uri):
        client = MlflowClient(uri, uri)
        experiment = client.get_run(run_id).info.experiment_id
        for step, (folder, names) in _RECORDED.items():
            wanted = f"tags.`medvision.package_digest` = '{digest}' AND tags.`medvision.step` = '{step}'"
            found = client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"], max_results=1)
            for run in found:
                _fetch_files(client, run.info.run_id, folder, names, results_dir(config))


def _fetch_files(client: MlflowClient, run_id: str, folder: str, names: tuple[str, ...], target: Path) -> None:
    from medvision.files import atomic_write

    there = {entry.path for entry in client.list_artifacts(run_id, folder)}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            if f"{folder}/{name}" in there:
                content = Path(client.download_artifacts(run_id, f"{folder}/{name}", scratch)).read_bytes()
                atomic_write(target / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
                say(f"{name}: from run {run_id}")
