"""A gated registry: an empty one, which is copied for each test, since a database of MLflow's takes seconds to make."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from registry_cases import Registry

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """Return a registry with one model and no version, which no test changes."""
    return Registry.make(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def registry(empty, tmp_path, monkeypatch):
    """Return a registry of the test's own; the test works in its folder."""
    made = empty.copy(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made
