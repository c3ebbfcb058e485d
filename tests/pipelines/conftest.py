"""One project that has gone through the whole pipeline, for the tests that look at what it left."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from medvision_project import Project, compared_project, piped_project


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Return the project after ``medvision pipeline``; what is added to it later must not change what it left."""
    return piped_project(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Return the project after ``medvision compare`` of two models; what is added must not change what it left."""
    return compared_project(tmp_path_factory.getbasetemp())


@pytest.fixture
def workshop(tmp_path):
    """Return a fresh project, for what goes wrong."""
    return Project(tmp_path)
