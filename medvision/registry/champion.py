"""The champion: the version of a registered model that is in use."""

from __future__ import annotations

from pathlib import Path

CHAMPION = "champion"


def download_champion(tracking_uri: str, name: str, folder: Path) -> Path | None:
    """Fetch the champion's model package into a folder and return where it lies; None if there is no champion.

    Raises TrackingUnavailable: the registry does not answer.
    """
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    from medvision.registry.registration import reaching

    client = MlflowClient(tracking_uri, tracking_uri)
    with reaching(tracking_uri, again="validate"):
        try:
            number = client.get_registered_model(name).aliases.get(CHAMPION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if number is None:
            return None
        source = client.get_model_version_download_uri(name, number)
        model = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(folder), tracking_uri=tracking_uri))
    artifacts = Model.load(str(model)).flavors["python_function"]["artifacts"]
    return model / str(artifacts["package"]["path"])
