"""A project with a champion, one service that most tests ask, and services of a test's own for what goes wrong."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))

from registry_cases import Registry
from service_cases import ForkServer, await_service, new_key, start_service


@pytest.fixture(scope="session")
def forks():
    """Return what services are started from."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def crowned(tmp_path_factory):
    """Return a project whose champion is version 1, beside version 2; no test changes it."""
    project = Registry.make(tmp_path_factory.mktemp("crowned"))
    project.set(approvals=0, champion=["staging"])
    project.crown(1)
    project.register(2)
    return project


@pytest.fixture(scope="session")
def service(forks, crowned, tmp_path_factory):
    """Return a service that asks for keys, whose own has the role admin; tests leave it as they found it."""
    project = crowned.copy(tmp_path_factory.mktemp("served") / "project")
    running = await_service(start_service(forks, project, key=new_key(project, "admin")))
    yield running
    running.kill()


@pytest.fixture
def project(crowned, tmp_path):
    """Return a project of the test's own."""
    return crowned.copy(tmp_path / "project")


@pytest.fixture
def serve(forks, project):
    """Return what starts services of the test's own project, and waits until they answer."""
    running = []

    def start(*options, **named):
        running.append(start_service(forks, project, *options, **named))
        return await_service(running[-1])

    yield start
    for each in running:
        each.kill()
