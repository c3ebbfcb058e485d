"""Packages are fetched from MLflow, and what can't be fetched says what to do."""

import mlflow
import pytest

from medvision.errors import TrackingUnavailable
from medvision.registry.packages import download_champion, download_package


@pytest.fixture
def away(monkeypatch):
    """Let the registry know of a champion, and be gone when it is fetched."""

    def refuse(*_, **__):
        raise ConnectionError

    registered = mlflow.entities.model_registry.RegisteredModel("m", aliases=[])
    registered._aliases = {"champion": "1"}
    monkeypatch.setattr(mlflow.MlflowClient, "get_registered_model", lambda *_: registered)
    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version_download_uri", lambda *_: "/gone")
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", refuse)
    return "sqlite://"


def test_the_step_that_asked_is_named(away, tmp_path):
    """Where the registry is gone the message names the step to run again: evaluate, or validate for a champion."""
    with pytest.raises(TrackingUnavailable, match="run: medvision evaluate"):
        download_package(away, "models:/m/1", tmp_path)
    with pytest.raises(TrackingUnavailable, match="run: medvision validate"):
        download_champion(away, "m", tmp_path)
