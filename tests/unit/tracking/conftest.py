"""A project's folder to record runs in, with one MLflow database for all tests: making one takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvision.config import Config, load_config


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "MLproject").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def configure(project: Path, store_uri: str) -> Callable[..., Config]:
    """Return settings: every test has an experiment of its own, named after its folder."""

    def _configure(**tracking: Any) -> Config:
        defaults = {"uri": store_uri, "wandb": False, "drain_s": 60, "experiment": project.name}
        overrides = {f"tracking.{key}": value for key, value in {**defaults, **tracking}.items()}
        return load_config(overrides={"dataset.name": "phantom", **overrides})

    return _configure
