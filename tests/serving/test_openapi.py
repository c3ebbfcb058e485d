"""The service keeps what its OpenAPI document says, whatever a machine can think of to ask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "unsupported_method", "use_after_free",
)  # fmt: skip


def attack(service, folder, examples):
    """Let schemathesis ask the service whatever its document allows and what it does not; return how it ended."""
    command = [
        Path(sys.executable).with_name("st"), "run", f"{service.url}/openapi.json", "--checks", ",".join(CHECKS),
        "--max-examples", str(examples), "--seed", "1", "--generation-database", "none", "--no-color",
        "-H", f"Authorization: Bearer {service.key}", "--request-timeout", "30", "--suppress-health-check", "all",
    ]  # fmt: skip
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=500)


def test_the_document_is_kept(service, tmp_path):
    """A few requests an endpoint find no answer that the document does not have, and no error of the server."""
    found = attack(service, tmp_path, 5)
    assert found.returncode == 0, found.stdout[-8000:]
    assert service.get("/readyz").status_code == 200


@pytest.mark.slow
def test_the_document_is_kept_under_many_requests(service, tmp_path):
    """Nor do many."""
    found = attack(service, tmp_path, 200)
    assert found.returncode == 0, found.stdout[-8000:]
    assert service.get("/readyz").status_code == 200


def test_the_document_has_every_endpoint(service):
    """Each endpoint of the service is in the document, with the errors that it may answer."""
    paths = service.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/livez", "/readyz", "/health", "/metrics", "/api/v1/usage", "/api/v1/model_info", "/api/v1/predict",
        "/api/v1/predict/advanced", "/api/v1/predict/batch",
    }  # fmt: skip
    told = set(paths["/api/v1/predict"]["post"]["responses"])
    assert told >= {"400", "401", "403", "408", "413", "415", "429", "503", "504"}
