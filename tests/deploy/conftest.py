"""The files of deploy/, and promtool, which Prometheus comes with."""

import shutil
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def deploy():
    """Return the folder deploy/."""
    return DEPLOY


@pytest.fixture(scope="session")
def promtool():
    """Return the path of promtool."""
    return find_program("promtool")


@pytest.fixture(scope="session")
def prometheus():
    """Return the path of Prometheus itself."""
    return find_program("prometheus")


def find_program(name):
    """Return the path of a program; skip without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: apt-get install prometheus")
    return found
