"""The prediction service keeps no identifier: a name that stands anywhere in a request is in nothing that it writes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))

from registry_cases import Registry
from service_cases import (
    ForkServer,
    await_service,
    form_type,
    image_bytes,
    multipart,
    new_key,
    run_command,
    start_service,
)
from test_canary import CANARY, _dicom, _jpeg, _png, find_canary, slices

pytestmark = pytest.mark.slow


@pytest.fixture
def ward(tmp_path):
    """Return a service, what all that it writes lies below, and what it was forked from."""
    project = Registry.make(tmp_path / "project")
    project.set(approvals=0)
    project.crown(1)
    (project.folder / "tmp").mkdir()
    forks = ForkServer()
    environment = {"TMPDIR": str(project.folder / "tmp")}
    service = await_service(start_service(forks, project, key=new_key(project, "admin"), environment=environment))
    yield service
    service.kill()
    forks.close()


def images():
    """Return files of each kind, with the canary in all that is not a pixel."""
    pixels = slices()[0].pixels
    png, jpeg, dicom = (writer(pixels, CANARY)[1] for writer in (_png, _jpeg, _dicom))
    return png, jpeg, dicom, png[: len(png) // 2], CANARY.encode() * 100


def test_nothing_is_kept_of_a_patient(ward):
    """No log, audit log, export, figure, cache or temporary file has anything of a request but its hash."""
    headers = {
        "User-Agent": CANARY, "Referer": f"http://{CANARY}/", "Cookie": f"patient={CANARY}", "X-Patient": CANARY,
        "X-Request-ID": CANARY, "X-Forwarded-For": CANARY, "Forwarded": f"for={CANARY}", "Traceparent": CANARY,
        "Accept-Language": CANARY, "Origin": f"http://{CANARY}",
    }  # fmt: skip
    answers = []
    for content in images():
        for path in ("/api/v1/predict", "/api/v1/predict/advanced"):
            options = {"data": {"case_id": f"{CANARY}-7", f"{CANARY}": CANARY}, "headers": headers}
            params = {"patient": CANARY, "heat_map": "true"}
            answers.append(ward.predict(content, path=path, name=f"{CANARY}.png", params=params, **options))
        files = [("images", (f"{CANARY}-{number}.png", content)) for number in range(2)]
        ward.own.post("/api/v1/predict/batch", files=files, headers=headers)
    client = ward.client()
    for method, path in (("GET", f"/{CANARY}"), (CANARY, "/livez"), ("POST", f"/api/v1/predict/{CANARY}")):
        answers.append(client.request(method, path, headers=headers))
    answers.append(client.post("/api/v1/predict/advanced", params={"heat_map": CANARY}, files={CANARY: b""}))
    answers.append(client.get("/api/v1/usage", headers={"Authorization": f"Bearer {CANARY}"}))
    body = multipart(image_bytes(), boundary=CANARY).replace(b"\r\n", b"\r", 4)
    answers.append(client.post("/api/v1/predict", content=body, headers={"Content-Type": form_type(CANARY)}))
    with ward.connect() as connection:
        connection.sendall(f"GET /livez HTTP/1.1\r\n{CANARY}\r\n\r\n".encode())
        answers.append(connection.recv(65536))
    assert {getattr(each, "status_code", 400) for each in answers} == {200, 400, 401, 404, 405, 422}
    told = [
        getattr(each, "text", None) or str(each)
        for each in (*answers, *map(ward.get, ("/metrics", "/api/v1/usage", "/health")))
    ]
    assert not [text for text in told if CANARY.lower() in text.lower()]
    export = ward.project.folder / "audit.csv"
    assert run_command(ward.forks, ward.project, "audit-log", "export", "--out", str(export))[0] == 0
    assert len(ward.audited()) >= 8 and find_canary(ward.project.folder) == []
    assert ward.end() == 0
    assert find_canary(ward.project.folder) == []
