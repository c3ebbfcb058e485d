"""Whatever goes wrong within the service, a client gets a problem with an id, and the log no value that was at hand."""

import logging
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from medvision.serving.admission import Admission
from medvision.serving.app import build_app
from medvision.serving.metrics import ServiceMetrics


@pytest.fixture
def service():
    return SimpleNamespace(metrics=ServiceMetrics(), hosts=frozenset(), admission=Admission(1))


@pytest.fixture
def client(service):
    """Return a client of the application with one endpoint more, which has a fault."""
    border = build_app(service)

    async def broken():
        raise ValueError("JANE-DOE was born in 1950")

    app = border._app
    assert isinstance(app, FastAPI)
    app.add_api_route("/broken", broken)
    return TestClient(border)


def test_a_fault_is_a_problem(client):
    """An error that nobody has thought of is answered with 500 as problem JSON, which tells nothing of it."""
    answer = client.get("/broken")
    assert answer.status_code == 500 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "JANE" not in answer.text and "ValueError" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_fault_is_logged_without_values(client, caplog):
    """The log says where it was, under the request's id, and not what was at hand, which may be a patient's."""
    with caplog.at_level(logging.INFO):
        answer = client.get("/broken")
    assert answer.json()["request_id"] in caplog.text and "broken (test_border.py" in caplog.text
    assert "JANE" not in caplog.text and "Traceback" not in caplog.text


def test_a_fault_is_counted(client, service):
    """It is counted as an error, and its request under its status."""
    client.get("/broken")
    text = service.metrics.render().decode()
    assert 'medvision_errors_total{type="InternalError"} 1.0' in text
    assert 'medvision_requests_total{endpoint="/broken",method="GET",status="500"} 1.0' in text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]", "[::1]:8000"])
def test_a_service_without_keys_knows_its_names(client, service, host):
    """Every way to write the address of this machine is answered, also for a page of its own."""
    service.hosts = frozenset({"localhost", "127.0.0.1", "[::1]"})
    assert client.get("/livez", headers={"Host": host}).status_code == 200
    assert client.get("/livez", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:8000"},
        {"Host": "localhost:8000", "Origin": "https://evil.example"},
        {"Host": "localhost:8000", "Origin": "http://localhost:3000"},
        {"Host": "localhost:8000", "Origin": "null"},
    ],
)
def test_a_page_from_elsewhere_does_not_reach_a_service_without_keys(client, service, headers):
    """Neither under a name of its own nor by a form that a browser sends here: it would fill the audit log."""
    service.hosts = frozenset({"localhost", "127.0.0.1", "[::1]"})
    assert client.post("/api/v1/predict", headers=headers).status_code == 421
