"""A model package as a logged model of MLflow, which `mlflow models serve` can start."""

from __future__ import annotations

import re
from pathlib import Path

from medvision.config import Config
from medvision.errors import CheckpointCorrupt, SourceUnusable, TrackingUnavailable
from medvision.models.package_files import verify_digest
from medvision.records import PackageInfo
from medvision.registry.answers import reaching
from medvision.registry.gate import PACKAGE
from medvision.registry.loader import CODE, check_loader, requirements
from medvision.registry.model_files import open_files
from medvision.tracking.journal import Journal, outbox
from medvision.tracking.mlflow_sink import RUN_KEY_TAG, tracking_uri
from medvision.tracking.recorder import Recorder

_RUN_KEY = re.compile(r"[0-9a-f]{32}")


def record_model(recorder: Recorder, package: Path, info: PackageInfo, digest: str) -> None:
    """Record a package as the run's model: base64 images in, label, confidence and all probabilities out."""
    recorder.model(
        info.name,
        package_dir=package,
        code_path=CODE,
        pip_requirements=requirements(),
        metadata={"medvision_package_digest": digest, "medvision_run_key": info.run_key},
    )


def find_logged_model(config: Config, recorder: Recorder, package: Path, info: PackageInfo, digest: str) -> str:
    """Return the id of a logged model that holds exactly this package, recording one in the run where there is none.

    A package that was trained has one. That of a checkpoint has none, nor has one that came from another MLflow; and
    what an older medvision has logged is loaded by other code than the gate knows.

    Raises TrackingUnavailable while it is still in the outbox, or if MLflow does not answer.
    """
    for model_id in _logged_models(config, info.run_key):
        if holds(config, f"models:/{model_id}", digest):
            return model_id
    record_model(recorder, package, info, digest)
    recorder.flush(config.tracking.drain_s)
    return _delivered(recorder)


def holds(config: Config, source: str, digest: str) -> bool:
    """Tell whether a logged model holds a package, whole, and the loader of this medvision."""
    try:
        with open_files(source, tracking_uri(config)) as files:
            folder = files.path(PACKAGE)
            return folder is not None and verify_digest(folder) == digest and check_loader(files) is None
    except (SourceUnusable, CheckpointCorrupt):
        return False


def has_file(config: Config, source: str, place: str, path: Path) -> bool:
    """Tell whether a logged model has a text file of this content at this place."""
    with open_files(source, tracking_uri(config)) as files:
        return files.text(place) == path.read_text(encoding="utf-8")


def _logged_models(config: Config, run_key: str) -> list[str]:
    """Return the ids of the models that a run has logged: by its journal, or by MLflow where it ran elsewhere."""
    if not _RUN_KEY.fullmatch(run_key):
        return []
    trained = Recorder(outbox(config.paths.state) / run_key)
    if any(event.kind == "model" for event in Journal(trained.folder).events()):
        return [_delivered(trained)]
    from mlflow import MlflowClient

    uri = tracking_uri(config)
    with reaching(uri, again="register"):
        client = MlflowClient(uri, uri)
        experiments = [found.experiment_id for found in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.`{RUN_KEY_TAG}` = '{run_key}'")
        outputs = [client.get_run(run.info.run_id).outputs for run in runs]
    return [output.model_id for each in outputs if each for output in each.model_outputs]


def _delivered(run: Recorder) -> str:
    model_id = run.model_id()
    if model_id is None:
        raise TrackingUnavailable(
            f"MLflow has not taken the model of run {run.run_key[:8]} yet. Once the tracking server is back, run: "
            "medvision sync, then medvision register."
        )
    return model_id
