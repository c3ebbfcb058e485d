"""MLflow as a sink, and the one module of tracking that knows it.

Everything is sent so that sending it again changes nothing: metrics carry the time at which they were recorded, the run
is found by its key, artifacts overwrite themselves. MLflow is imported inside the functions: it costs seconds.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from medvision.config import Config
from medvision.errors import ConfigInvalid, TrackingUnavailable
from medvision.files import locked, project_root
from medvision.tracking.journal import Event, Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.exceptions import MlflowException

_LOG = logging.getLogger(__name__)

NAME = "mlflow"
RUN_KEY_TAG = "medvision.run_key"
_MODEL_FILE_TAG = "medvision.file"

# Limits of one log_batch call.
_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100
# MLflow's database keeps so many characters of a dataset's digest; the whole digest stands in the profile.
_DIGEST_LENGTH = 36
# These say "not now" or "not you", which a person can change; every other status below 500 says "never".
_MAY_CHANGE = {401, 403, 408, 425, 429}


# MLflow's UI shows an experiment of another kind, or of none, as one of language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def tracking_uri(config: Config) -> str:
    """Return where runs are recorded: the setting, else MLFLOW_TRACKING_URI, else a database in the project's root."""
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()


def registry_uri(config: Config) -> str:
    """Return where versions are registered: where runs are recorded, and never past the gate.

    A server has the gate itself; a database gets it by the scheme under which MLflow finds the gated store. There is
    no gate for others: ConfigInvalid.
    """
    uri = tracking_uri(config)
    if uri.startswith(("sqlite:", "postgresql:", "postgresql+")):
        return f"medvision+{uri}"
    if uri.startswith(("http:", "https:")):
        return uri
    raise ConfigInvalid(
        f"tracking.uri: there is no gate before a registry at {without_credentials(uri)}. Expected sqlite:///FILE, "
        "postgresql://..., or a server, http(s)://..., which medvision ui starts."
    )


def without_credentials(uri: str) -> str:
    """Return a URI that can be written to a file: no user and no password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def prepare() -> None:
    """Import, in the calling thread, all that MLflow imports late, and make its client quick to give up.

    With a thread of MLflow at work, a first import of scipy or scikit-learn in the main thread has locked up (2 of 2).
    """
    configure_client()
    import matplotlib  # noqa: F401
    import mlflow.pyfunc
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn  # noqa: F401


def configure_client() -> None:
    """Make MLflow's client quick to give up, quiet, and silent towards its makers."""
    # 7 retries block one call to a dead server for 246 s; the couriers have their own patience.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow reports its usage to its makers; nothing leaves a hospital unasked.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def make_database(uri: str) -> None:
    """Make MLflow's database where the store is a SQLite file that is not there yet: whole, or not at all.

    MLflow would make it table by table: two first runs at once, or a first run that is killed meanwhile, left one that
    no later run could open.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            temporary = path.with_name(f".{path.name}.new")
            temporary.unlink(missing_ok=True)
            SqlAlchemyStore(f"sqlite:///{temporary}", str(path.parent / "mlruns")).engine.dispose()
            temporary.replace(path)


def source_tags() -> dict[str, str]:
    """Return the tags that MLflow gives to every run: user, and name and type of what was started."""
    from mlflow.tracking.context.registry import resolve_tags

    return dict(resolve_tags())


def save_model(
    folder: Path, *, package_dir: Path, code_path: Path, pip_requirements: list[str], metadata: dict[str, Any]
) -> None:
    """Save a model package as an MLflow model: base64 images in; label, confidence and all probabilities out.

    The code file is run once here, so that a model that can't be loaded is an error now and not when it is delivered.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Map

    answer: list[ColSpec | TensorSpec] = [
        ColSpec("string", "label"),
        ColSpec("double", "confidence"),
        ColSpec(Map(DataType.double), "probabilities"),
    ]
    with warnings.catch_warnings():
        # Advice to let MLflow guess the signature, which is given.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(code_path),
            artifacts={"package": str(package_dir)},
            signature=ModelSignature(inputs=Schema([ColSpec("string", "image")]), outputs=Schema(answer)),
            pip_requirements=pip_requirements,
            metadata=metadata,
        )


class MlflowSink:
    """Delivers one journal to one MLflow run."""

    name = NAME

    def __init__(self, journal: Journal, uri: str) -> None:
        self._journal = journal
        self._bookmark = journal.bookmark(NAME)
        self._uri = uri
        self._client: MlflowClient

    def deliver(self, kind: str, events: list[Event]) -> None:
        """Send events of one kind; what MLflow refuses for good is named in the log and left out."""
        try:
            self._send(kind, events)
        except TrackingUnavailable:
            raise
        except Exception as error:
            # Whatever else went wrong, the event is still in the journal: it stays pending, with the reason in the log.
            place = without_credentials(self._uri)
            raise TrackingUnavailable(f"MLflow at {place} can't be reached ({_brief(error)}).") from error

    def close(self) -> None:
        """Do nothing: the client holds no connection of its own."""

    def _send(self, kind: str, events: list[Event]) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = MlflowClient(tracking_uri=self._uri)
        try:
            getattr(self, f"_send_{kind}")(events)
        except MlflowException as error:
            if kind == "start" or not _is_final(error):
                raise
            if len(events) > 1:
                for event in events:
                    self._send(kind, [event])
            else:
                _LOG.warning("MLflow refused %s of run %s: %s", kind, self._journal.run_key, _brief(error))

    @property
    def _run_id(self) -> str:
        return str(self._bookmark.read()["run_id"])

    def _send_start(self, events: list[Event]) -> None:
        for event in events:
            tags = {name: str(value) for name, value in event.content["tags"].items()}
            tags |= {RUN_KEY_TAG: self._journal.run_key}
            parent = self._parent(event)
            if parent:
                tags["mlflow.parentRunId"] = parent["run_id"]
            run = self._find_run(event, parent)
            if run is None:
                name = event.content["run_name"]
                run = self._client.create_run(
                    self._home(event, parent), start_time=event.at_ms, tags=tags, run_name=name
                )
            else:
                is_launched = event.content["mlflow_run_id"] is not None
                name = event.content["run_name"] if is_launched else None
                self._client.update_run(run.info.run_id, status="RUNNING", name=name)
                # What the launcher of an MLflow project has said of its run is nearer the truth than what we see.
                known = {key for key in run.data.tags if key.startswith("mlflow.")}
                self._log_tags(run.info.run_id, {key: value for key, value in tags.items() if key not in known})
            self._bookmark.update(run_id=run.info.run_id, experiment_id=run.info.experiment_id)

    def _parent(self, event: Event) -> dict[str, Any]:
        """Return MLflow's ids of the run in which this one is nested; empty if it is in none."""
        parent_key = event.content["parent_run_key"]
        if parent_key is None:
            return {}
        parent = Journal(self._journal.folder.parent / parent_key)
        ids = parent.bookmark(NAME).read()
        if "run_id" in ids:
            return ids
        if not parent.size_bytes():
            # Somebody has deleted it: the run is worth more than its place below another.
            return {}
        raise TrackingUnavailable(f"Run {self._journal.run_key} waits until MLflow knows its parent {parent_key}.")

    def _home(self, event: Event, parent: dict[str, Any]) -> str:
        # The UI nests only what is in one experiment: that of the outermost run, which `mlflow run` may have chosen.
        return parent.get("experiment_id") or self._experiment_id(event.content["experiment"])

    def _find_run(self, event: Event, parent: dict[str, Any]) -> Run | None:
        run_id = self._bookmark.read().get("run_id") or event.content["mlflow_run_id"]
        if run_id:
            return self._client.get_run(run_id)
        found = self._client.search_runs(
            [self._home(event, parent)], f"tags.`{RUN_KEY_TAG}` = '{self._journal.run_key}'"
        )
        return found[0] if found else None

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                location = self._artifact_location(name)
                return str(self._client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
            except MlflowException:
                # Another run of the same experiment was quicker.
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    def _artifact_location(self, experiment: str) -> str | None:
        # MLflow would take the working directory, which need not be the project's root.
        return str(project_root() / "mlruns" / experiment) if self._uri == _default_uri() else None

    def _send_params(self, events: list[Event]) -> None:
        from mlflow.entities import Param

        values = {name: str(value) for event in events for name, value in event.content["values"].items()}
        known = self._client.get_run(self._run_id).data.params
        for name in sorted(name for name in values if known.get(name, values[name]) != values[name]):
            _LOG.warning("MLflow keeps param %s as %s, which it was before: not %s.", name, known[name], values[name])
        fresh = [Param(name, value) for name, value in values.items() if name not in known]
        for batch in _batches(fresh, _PARAMS_PER_BATCH):
            self._client.log_batch(self._run_id, params=batch)

    def _send_tags(self, events: list[Event]) -> None:
        for event in events:
            self._log_tags(self._run_id, event.content["values"])

    def _log_tags(self, run_id: str, values: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        for batch in _batches([RunTag(name, str(value)) for name, value in values.items()], _PARAMS_PER_BATCH):
            self._client.log_batch(run_id, tags=batch)

    def _send_metrics(self, events: list[Event]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, event.at_ms, event.content["step"])
            for event in events
            for name, value in event.content["values"].items()
        ]
        for batch in _batches(metrics, _METRICS_PER_BATCH):
            self._client.log_batch(self._run_id, metrics=batch)

    def _send_artifact(self, events: list[Event]) -> None:
        for event in events:
            path = self._journal.folder / event.content["file"]
            self._client.log_artifact(self._run_id, str(path), event.content["folder"] or None)

    def _send_dataset(self, events: list[Event]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=event.content["name"],
                    digest=event.content["digest"][:_DIGEST_LENGTH],
                    source_type="local",
                    source=json.dumps({"uri": event.content["source"]}),
                    profile=json.dumps({"fingerprint": event.content["digest"], **event.content["profile"]}),
                ),
                tags=[InputTag("mlflow.data.context", event.content["context"])],
            )
            for event in events
        ]
        self._client.log_inputs(self._run_id, datasets=inputs)

    def _send_model(self, events: list[Event]) -> None:
        from mlflow.entities import LoggedModelOutput

        for event in events:
            model = self._find_model(event) or self._client.create_logged_model(
                experiment_id=self._bookmark.read()["experiment_id"],
                name=event.content["name"],
                source_run_id=self._run_id,
                tags={_MODEL_FILE_TAG: event.content["file"]},
                model_type="classifier",
            )
            self._upload_model(model, self._journal.folder / event.content["file"])
            self._client.log_outputs(self._run_id, [LoggedModelOutput(model.model_id, step=0)])
            self._bookmark.update(model_id=model.model_id)

    def _find_model(self, event: Event) -> LoggedModel | None:
        found = self._client.search_logged_models(
            [self._bookmark.read()["experiment_id"]],
            filter_string=f"source_run_id = '{self._run_id}' AND tags.`{_MODEL_FILE_TAG}` = '{event.content['file']}'",
        )
        return found[0] if found else None

    def _upload_model(self, model: LoggedModel, folder: Path) -> None:
        from mlflow.models import Model

        # The model was saved when it was recorded, before MLflow had given these.
        description = Model.load(folder)
        description.run_id = self._run_id
        description.model_id = model.model_id
        description.model_uuid = model.model_id
        description.artifact_path = model.artifact_location
        description.save(str(folder / "MLmodel"))
        self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, "READY")

    def _send_end(self, events: list[Event]) -> None:
        for event in events:
            self._client.set_terminated(self._run_id, event.content["status"], end_time=event.at_ms)


def _default_uri() -> str:
    return f"sqlite:///{project_root() / 'mlflow.db'}"


def _is_final(error: MlflowException) -> bool:
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in _MAY_CHANGE


def _brief(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
