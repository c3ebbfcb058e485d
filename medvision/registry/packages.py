"""Model packages that MLflow keeps: fetched by registered version, alias, logged model or run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.errors import ConfigInvalid, LedgerBroken
from medvision.registry.answers import reaching
from medvision.registry.gate import PACKAGE
from medvision.registry.ledger import CHAMPION, check_chain, last_promotion
from medvision.registry.model_files import ModelFiles, model_id, open_files
from medvision.registry.names import is_run_id, parse_version_name
from medvision.registry.promotion import read_ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class FoundModel:
    """A model of MLflow's: name and number of a registered version, "" for a logged model that is named directly."""

    name: str
    number: str
    version: str
    source: str

    @property
    def uri(self) -> str:
        """Return the URI that stays this model's, wherever an alias moves to."""
        return f"models:/{self.name}/{self.number}" if self.number else self.source


def models_uri(model: str) -> str:
    """Return the URI of NAME/NUMBER, NAME/MAJOR.MINOR.PATCH or NAME@ALIAS; one that is given stays."""
    try:
        found = parse_version_name(model)
    except ConfigInvalid:
        # Of its own URIs, such as those of logged models, MLflow knows more.
        if model.startswith("models:/"):
            return model
        raise
    return f"models:/{found.name}/{found.number}" if found.number is not None else f"models:/{found.name}@{found.alias}"


def look_up(tracking_uri: str, model: str, *, again: str) -> FoundModel:
    """Return what NAME/NUMBER, NAME/MAJOR.MINOR.PATCH, NAME@ALIAS or a URI such as models:/m-ID is now.

    Raises ConfigInvalid for what MLflow does not know; TrackingUnavailable, which names the step to run ``again``, if
    it does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    client, uri = MlflowClient(tracking_uri, tracking_uri), models_uri(model)
    with reaching(tracking_uri, again=again):
        try:
            found = get_model_name_and_version(client, uri)
            if len(found) == 1:
                return FoundModel(client.get_logged_model(found[0]).name, "", "", f"models:/{found[0]}")
            version = client.get_model_version(*found)
        except MlflowException as error:
            if error.get_http_status_code() >= 500:
                raise
            raise ConfigInvalid(
                f"There is no model {model} ({error.message}). Give NAME/NUMBER or NAME@ALIAS, for example "
                "brain-mri-resnet18@champion."
            ) from None
    return FoundModel(version.name, str(version.version), version.tags.get("version", ""), str(version.source))


@contextlib.contextmanager
def open_package(tracking_uri: str, model: FoundModel) -> Iterator[tuple[Path, ModelFiles]]:
    """Yield where the package of a model can be read, and all files of the model.

    Raises ConfigInvalid: it holds no package. SourceUnusable: it is no logged model of MLflow's.
    """
    with open_files(model.source, tracking_uri) as files:
        package = files.path(PACKAGE)
        if package is None:
            raise ConfigInvalid(f"{model.uri} holds no model package of medvision's. Register one: medvision register")
        yield package, files


def promoted_code(client: MlflowClient, model: FoundModel, trusted: Mapping[str, Ed25519PublicKey]) -> set[str]:
    """Return the hash of the code that loaded a version when it was promoted, as its ledger proves; none if none does.

    A later medvision may have another loader; the one that was promoted is as good as it was.
    """
    try:
        entries = read_ledger(client, model.name) if model.number else []
        check_chain(entries, trusted)
    except (ConfigInvalid, LedgerBroken):
        return set()
    promotion = last_promotion(entries, int(model.number)) if entries else None
    return {promotion.code_sha256} if promotion else set()


def download_champion(tracking_uri: str, name: str, folder: Path) -> Path | None:
    """Fetch the package of a registered model's champion into a folder and return where it lies; None without one.

    Raises TrackingUnavailable: the registry does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri, tracking_uri)
    with reaching(tracking_uri, again="validate"):
        try:
            number = client.get_registered_model(name).aliases.get(CHAMPION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return (
        None if number is None else download_package(tracking_uri, f"models:/{name}/{number}", folder, again="validate")
    )


def download_package(tracking_uri: str, source: str, folder: Path, *, again: str = "evaluate") -> Path:
    """Fetch the package of ``models:/NAME/VERSION``, ``models:/NAME@ALIAS`` or of a run id into a folder.

    Returns where it lies. Raises ConfigInvalid for what MLflow does not know, or what holds no package;
    TrackingUnavailable, which names the step to run ``again``, if it does not answer.
    """
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    client = MlflowClient(tracking_uri, tracking_uri)
    with reaching(tracking_uri, again=again):
        try:
            place = _place(client, _of_run(client, source) if is_run_id(source) else source)
            model = Path(mlflow.artifacts.download_artifacts(place, dst_path=str(folder), tracking_uri=tracking_uri))
            artifacts = Model.load(str(model)).flavors["python_function"]["artifacts"]
        except (MlflowException, KeyError) as error:
            if isinstance(error, MlflowException) and error.get_http_status_code() >= 500:
                raise
            raise ConfigInvalid(
                f"{source} holds no model of medvision's ({error}). Give models:/NAME/VERSION, models:/NAME@ALIAS, or "
                "the id of a run that trained one."
            ) from None
    return model / str(artifacts["package"]["path"])


def _place(client: MlflowClient, uri: str) -> str:
    """Return where the files of a model are; of a models:/ URI MLflow would ask the store of its own settings."""
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    found = get_model_name_and_version(client, uri)
    origin = f"models:/{found[0]}" if len(found) == 1 else client.get_model_version_download_uri(*found)
    id_ = model_id(origin)
    return str(client.get_logged_model(id_).artifact_location) if id_ else str(origin)


def _of_run(client: MlflowClient, run_id: str) -> str:
    outputs = client.get_run(run_id).outputs
    models = [output.model_id for output in outputs.model_outputs] if outputs else []
    if not models:
        raise KeyError("the run has no model")
    return f"models:/{models[-1]}"
