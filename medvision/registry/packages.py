"""Model packages that MLflow keeps: fetched by registered version, alias, logged model or run."""

from __future__ import annotations

import re
from pathlib import Path

from medvision.errors import ConfigInvalid
from medvision.registry.registration import reaching

CHAMPION = "champion"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


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
            uri = _of_run(client, source) if _RUN_ID.fullmatch(source) else source
            model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=tracking_uri))
            artifacts = Model.load(str(model)).flavors["python_function"]["artifacts"]
        except (MlflowException, KeyError) as error:
            if isinstance(error, MlflowException) and error.get_http_status_code() >= 500:
                raise
            raise ConfigInvalid(
                f"{source} holds no model of medvision's ({error}). Give models:/NAME/VERSION, models:/NAME@ALIAS, or "
                "the id of a run that trained one."
            ) from None
    return model / str(artifacts["package"]["path"])


def _of_run(client: object, run_id: str) -> str:
    outputs = client.get_run(run_id).outputs  # type: ignore[attr-defined]
    models = [output.model_id for output in outputs.model_outputs] if outputs else []
    if not models:
        raise KeyError("the run has no model")
    return f"models:/{models[-1]}"
