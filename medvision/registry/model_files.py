"""The files of a logged model, where the gate can read them: in place on this machine, fetched from elsewhere."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from medvision.errors import SourceUnusable, TrackingUnavailable

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})")
# MLflow's server sets them in each of its processes.
_SERVER_STORE, _SERVER_ARTIFACTS = "_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
# The longest verdict so far has 30 kB.
MAX_TEXT_BYTES = 1_000_000


def model_id(source: str | None) -> str | None:
    """Return the id of the logged model that a version was made of; None if it was made of anything else."""
    found = _SOURCE.fullmatch(source or "")
    return found[1] if found else None


def find_model(id_: str, tracking_uri: str | None) -> LoggedModel:
    """Return a logged model; SourceUnusable if there is none, TrackingUnavailable if MLflow does not answer."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        # In a server this is its own database, and not the server, which would have to answer itself.
        return MlflowClient(os.environ.get(_SERVER_STORE) or tracking_uri).get_logged_model(id_)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise SourceUnusable(f"There is no logged model {id_}.") from None
        raise TrackingUnavailable(f"The logged model {id_} can't be looked up: {error.message}") from None


def find_trainer(run_id: str | None, tracking_uri: str | None) -> str | None:
    """Return the user who started a run, as MLflow has noted it; None if that is not known.

    Raises TrackingUnavailable if MLflow does not answer: who has trained a model must not be passed over.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = MlflowClient(os.environ.get(_SERVER_STORE) or tracking_uri).get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise TrackingUnavailable(f"The run {run_id} can't be looked up: {error.message}") from None
    return run.data.tags.get("mlflow.user")


@dataclass(frozen=True)
class ModelFiles:
    """The artifacts of one logged model; ``run_id`` is the run that made it."""

    id: str
    run_id: str | None
    location: str
    _repository: ArtifactRepository
    _prefix: str
    _scratch: Path

    def path(self, name: str) -> Path | None:
        """Return where a file or folder of the model can be read; None if it has none of this name."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        place = None if isinstance(self._repository, LocalArtifactRepository) else str(self._scratch)
        try:
            found = Path(self._repository.download_artifacts(self._prefix + name, place))
        except (MlflowException, OSError):
            # Each kind of storage has its own words for a file that is not there.
            return None
        return found if found.exists() else None

    def text(self, name: str) -> str | None:
        """Return a small text file; None if there is none, or none that is small and in UTF-8."""
        path = self.path(name)
        if path is None or not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
            return None
        try:
            return path.read_bytes().decode()
        except UnicodeDecodeError:
            return None

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder of the model, none if it has no such folder."""
        infos = self._repository.list_artifacts(self._prefix + folder)
        return sorted(Path(info.path).name for info in infos if not info.is_dir)


@contextlib.contextmanager
def open_files(source: str, tracking_uri: str | None, kept_at: str = "") -> Iterator[ModelFiles]:
    """Yield the files of the logged model that a version was made of; SourceUnusable if it was made of none.

    ``kept_at``: where the files are, if the logged model was deleted, which leaves them in their place.
    """
    id_ = model_id(source)
    if id_ is None:
        raise SourceUnusable(f"The version was made of {source!r}, which is no logged model of MLflow's.")
    run_id, location = _find_place(id_, tracking_uri, kept_at)
    with tempfile.TemporaryDirectory(prefix="medvision-gate-") as scratch:
        repository, prefix = _repository(location, tracking_uri)
        yield ModelFiles(id_, run_id, location, repository, prefix, Path(scratch))


def _find_place(id_: str, tracking_uri: str | None, kept_at: str) -> tuple[str | None, str]:
    """Return the run of a logged model and where its files are."""
    try:
        model = find_model(id_, tracking_uri)
    except SourceUnusable:
        if not kept_at:
            raise
        return None, kept_at
    return model.source_run_id, model.artifact_location


def _repository(location: str, tracking_uri: str | None) -> tuple[ArtifactRepository, str]:
    """Return where artifacts are stored, and the path of a location in it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    scheme = urlsplit(location).scheme
    if _SERVER_STORE not in os.environ:
        return get_artifact_repository(location, tracking_uri=tracking_uri), ""
    if scheme in ("http", "https"):
        # A client has chosen it: the gate fetches nothing from where it is told to.
        raise SourceUnusable(f"The logged model's files are at {location}, which is not storage of this server's.")
    if scheme == "mlflow-artifacts":
        root = os.environ.get(_SERVER_ARTIFACTS)
        if not root:
            raise SourceUnusable("The logged model's files can't be read: the server has no --artifacts-destination.")
        return get_artifact_repository(root), urlsplit(location).path.strip("/") + "/"
    return get_artifact_repository(location), ""
