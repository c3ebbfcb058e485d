"""Prometheus itself, with our settings, against the service's metrics behind a key."""

import contextlib
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest
import yaml

from medvision.serving.metrics import CONTENT_TYPE, ServiceMetrics

KEY = "mv_0123456789abcdef_key-of-the-test"


def free_port():
    """Return a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def service():
    """Serve metrics at /metrics to who has the key; return the port."""
    metrics = ServiceMetrics()
    metrics.loaded("m", "1.0.0", "ab12", "onnx", "production")
    metrics.request("/api/v1/predict", "POST", 200, 0.02)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            allowed = self.path == "/metrics" and self.headers["Authorization"] == f"Bearer {KEY}"
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            self.wfile.write(metrics.render() if allowed else b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(service, deploy, prometheus, tmp_path):
    """Start Prometheus on deploy/prometheus.yml, with another target and quicker; return what asks it a query."""
    settings = yaml.safe_load((deploy / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{service}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
    (tmp_path / "alerts.yml").write_text((deploy / "alerts.yml").read_text())
    (tmp_path / "medvision.key").write_text(KEY + "\n")
    address = f"127.0.0.1:{free_port()}"
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    process = subprocess.Popen(
        [prometheus, *options], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def ask(query):
        url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]["result"]
        return []

    yield ask
    process.terminate()
    process.wait(20)


def wait_for(ask, query):
    """Return the answer to a query, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := ask(query):
            return found
        time.sleep(0.2)
    raise AssertionError(f"Prometheus knows nothing of {query}")


def test_prometheus_reads_the_service(ask):
    """With the key, Prometheus has the service's metrics, without when each began; no alert is about to fire."""
    assert wait_for(ask, 'up{job="medvision"} == 1')
    (info,) = wait_for(ask, "medvision_model_info")
    assert info["metric"]["package_digest"] == "ab12"
    assert wait_for(ask, 'medvision_requests_total{endpoint="/api/v1/predict", status="200"}')
    assert ask('{__name__=~"medvision_.*_created"}') == []
    assert ask("ALERTS") == []
