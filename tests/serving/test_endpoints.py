"""What the service answers, endpoint by endpoint: answers, problems, and the headers around both."""

import base64
import io
import re
import socket

import pytest
from PIL import Image
from registry_cases import NAME
from service_cases import form_type, image_bytes, multipart, new_key

# What would tell a stranger of the machine: folders, stack traces, modules.
LEAK = re.compile(r'Traceback|File "|\.py\b|/(?:tmp|home|root|usr|work|var|etc)/|site-packages|medvision\.')


def check_problem(answer, status):
    """Check that an answer is a problem as RFC 9457 has it, which tells nothing of the server; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status and body["type"].startswith("urn:medvision:problem:")
    assert body["title"] and body["detail"] and body["request_id"] == answer.headers["x-request-id"]
    assert not LEAK.search(answer.text)
    return body


def test_a_prediction(service):
    """An image is answered with the version, the most probable class, its probability and those of all classes."""
    answer = service.predict().json()
    assert (answer["model"], answer["version"], answer["status"]) == (NAME, "1", "answered")
    assert answer["prediction"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert set(answer["probabilities"]) == {"no", "yes"} and abs(sum(answer["probabilities"].values()) - 1) < 1e-6
    assert answer["processing_time_ms"] > 0


def test_every_answer_is_in_the_audit_log(service):
    """An answer's request id finds one entry, with the scores that were sent and neither image nor file name."""
    answer = service.predict(image_bytes(7), name="ward-7.png", data={"case_id": "case-7"})
    (entry,) = [each for each in service.audited() if each["request_id"] == answer.json()["request_id"]]
    assert entry["scores"] == answer.json()["probabilities"] and entry["version"] == "1"
    assert entry["case_hash"] and "case-7" not in str(entry) and "ward-7" not in str(entry)


def test_the_same_image_the_same_answer(service):
    """An image has the same probabilities each time, alone or among others."""
    alone = [service.predict(image_bytes(3)).json()["probabilities"] for _ in range(20)]
    files = [("images", (f"{seed}.png", image_bytes(seed))) for seed in (1, 3, 2)]
    among = service.own.post("/api/v1/predict/batch", files=files).json()["results"][1]["answer"]["probabilities"]
    assert all(each == alone[0] for each in alone)
    assert among == pytest.approx(alone[0], abs=1e-6)


def test_an_advanced_prediction(service):
    """It also says how sure the answer is, what to do, and, if asked, draws where the model looked."""
    answer = service.predict(path="/api/v1/predict/advanced", params={"heat_map": "true"}).json()
    assert answer["uncertainty"]["level"] in {"low", "medium", "high"}
    assert 0 <= answer["uncertainty"]["entropy"] <= 1 and answer["uncertainty"]["recommendation"]
    assert len(answer["members"]) == 1 and answer["members"][0]["probabilities"] == answer["probabilities"]
    Image.open(io.BytesIO(base64.b64decode(answer["heat_map_png"]))).verify()
    assert service.predict(path="/api/v1/predict/advanced").json()["heat_map_png"] is None


def test_one_bad_file_of_many(service):
    """A file that is no image is reported under its name, and the others are answered and audited."""
    before = len(service.audited())
    files = [("images", (f"{name}.png", content)) for name, content in
             (("a", image_bytes(1)), ("bad", b"no image"), ("c", image_bytes(2)))]  # fmt: skip
    answer = service.own.post("/api/v1/predict/batch", files=files).json()
    assert [each["file"] for each in answer["results"]] == ["a.png", "bad.png", "c.png"]
    assert [each["answer"] is None for each in answer["results"]] == [False, True, False]
    assert answer["results"][1]["error"] and not LEAK.search(answer["results"][1]["error"])
    summary = answer["summary"]
    assert (summary["files"], summary["answered"], summary["failed"]) == (3, 2, 1)
    assert sum(summary["counts"].values()) == 2 and 0 < summary["mean_confidence"] <= 1
    assert len(service.audited()) == before + 2


def test_model_info(service):
    """It names the version that answers, its package, its verdict and figures."""
    info = service.get("/api/v1/model_info").json()
    assert (info["name"], info["version"], info["classes"]) == (NAME, "1", ["no", "yes"])
    assert info["verdict"] == "passed" and info["policy"] == "production"
    assert info["figures"]["accuracy"] == 0.95
    assert len(info["package_digest"]) == 64


def test_probes(service):
    """A service that can answer says so, and needs no key for it."""
    nobody = service.client(None)
    assert nobody.get("/livez").json() == {"status": "alive"}
    assert nobody.get("/readyz").json() == {"status": "ready", "reasons": []}
    assert nobody.get("/health").json()["version"] == "1"


def test_usage_and_metrics_count(service):
    """A prediction is counted for people and for Prometheus."""
    counts = [(service.get("/api/v1/usage").json()["predictions"], _count(service))]
    service.predict()
    counts.append((service.get("/api/v1/usage").json()["predictions"], _count(service)))
    assert counts[1] == (counts[0][0] + 1, counts[0][1] + 1)


def _count(service):
    text = service.get("/metrics").text
    assert f'medvision_model_loaded{{model="{NAME}",version="1"}} 1.0' in text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("medvision_predictions_total{"))


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/page/nowhere.js", {}, 404),
        ("GET", "/page/../../../etc/passwd", {}, 404),
        ("GET", "/page/%2e%2e/%2e%2e/app.py", {}, 404),
        ("GET", "/docs/static/..%2f..%2f__init__.py", {}, 404),
        ("GET", "/api/v1/predict", {}, 405),
        ("DELETE", "/livez", {}, 405),
        ("POST", "/api/v1/predict", {"json": {}}, 415),
        ("POST", "/api/v1/predict", {"data": {"image": "text"}}, 415),
        ("POST", "/api/v1/predict", {"files": {"other": b"x"}}, 400),
        ("POST", "/api/v1/predict", {"files": {"image": b"no image"}}, 400),
        ("POST", "/api/v1/predict", {"files": {"image": b""}}, 400),
        ("POST", "/api/v1/predict/batch", {"files": {"image": b"x"}}, 400),
        ("POST", "/api/v1/predict/advanced?heat_map=maybe", {"files": {"image": image_bytes()}}, 422),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_problem(service, method, path, options, status):
    """Whatever is asked wrongly is answered with problem JSON, which names neither files nor code of the server."""
    check_problem(service.own.request(method, path, **options), status)


def test_what_is_no_http_is_a_problem(service):
    """A request that is no HTTP is answered with 400, as a problem, and the connection is closed."""
    with service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nBad Header\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in answer
    assert not LEAK.search(answer.decode())


@pytest.mark.parametrize("name", ["\ud800", "+2AA-"])
def test_names_that_are_no_text(service, name):
    """A file name or case id that is no valid text, under whatever charset, never makes the service fail."""
    body = multipart(image_bytes(), name=name.encode("utf-8", "surrogatepass").decode("latin-1"))
    case = b'--BOUNDARY\r\nContent-Disposition: form-data; name="case_id"\r\n\r\n+2AA-\r\n'
    for charset in ("utf-8", "utf-7", "utf-16", "idna", "hex", "nonsense"):
        for path, field in (("predict", b"image"), ("predict/batch", b"images")):
            content = body.replace(b'name="image"', b'name="' + field + b'"')
            answer = service.own.post(
                f"/api/v1/{path}",
                content=content if field == b"images" else case + content,
                headers={"Content-Type": f"{form_type()}; charset={charset}"},
            )
            assert answer.status_code in (200, 400), (charset, path, answer.text)


def test_a_value_with_a_url_is_not_followed(service):
    """No URL is accepted in place of an image: nothing is fetched."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        for options in (
            {"files": {"image": url.encode()}}, {"data": {"image": url}}, {"params": {"image": url, "url": url}},
            {"files": {"image": (url, b"x")}}, {"json": {"image": url}},
        ):  # fmt: skip
            assert service.own.post("/api/v1/predict", **options).status_code in (400, 415)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/nowhere", "/api/v1/predict", "/page/index.html"])
def test_security_headers(service, path):
    """Every answer, right or wrong, forbids framing, sniffing, caching and foreign scripts; none allows origins."""
    headers = service.get(path, headers={"Origin": "https://evil.example"}).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers and not [name for name in headers if name.startswith("access-control")]


def test_a_client_does_not_choose_the_request_id(service):
    """The id of a request is the service's own: what a client sends as one is neither repeated nor logged."""
    answer = service.predict(headers={"X-Request-ID": "PATIENT-1"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] != "PATIENT-1"


def test_errors_are_counted_by_type(service):
    """A refusal is counted under the service's own word for it, and the endpoint under its template."""
    service.own.post("/api/v1/predict", json={})
    service.get("/PATIENT-1")
    text = service.client(new_key(service.project, "read")).get("/metrics").text
    assert 'medvision_errors_total{type="MediaUnsupported"}' in text
    assert 'endpoint="/api/v1/predict",method="POST",status="415"' in text and "PATIENT-1" not in text


@pytest.mark.parametrize("fields", [{"case_id": "c" * 257}, {"case_id": ["a", "b"]}], ids=["long", "twice"])
def test_a_case_that_is_none(service, fields):
    """What could be told from another case in one place and not in another is refused."""
    answer = service.predict(data=fields)
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/problem+json"
