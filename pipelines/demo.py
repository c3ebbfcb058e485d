"""The whole life of a model on synthetic images, ending with an answer of the served model."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.console import say
from pipelines.dataset import prepare_dataset
from pipelines.options import configure
from pipelines.phantom import phantom
from pipelines.pipeline import pipeline
from pipelines.serve_mlflow import serve_command, serve_environment

if TYPE_CHECKING:
    from medvision.registry.registration import Registration

_SAMPLE = Path("demo/brain-phantom")
_PATIENT_PATTERN = r"(phantom\d+)"
_START_S = 120


def demo() -> Registration:
    """Make SYNTHETIC images, train, evaluate, validate, register and serve a model on them, and ask it."""
    say("medvision demo. All images are SYNTHETIC: brain-like phantoms, of no medical meaning.\n")
    phantom(_SAMPLE, patients=60)
    registration = pipeline(
        model="simple_cnn", epochs=12, image_size=64, dataset_path=_SAMPLE, patient_pattern=_PATIENT_PATTERN
    )
    say("\n== serve")
    image = _test_image()
    with _serving(registration.uri) as url:
        say(f"POST {url}  {image}")
        say(json.dumps(_ask(url, image), indent=2))
    say(_what_next(registration))
    return registration


@contextlib.contextmanager
def _serving(uri: str) -> Iterator[str]:
    port = _free_port()
    log = Path("demo/serve.log")
    with log.open("w") as output:
        server = subprocess.Popen(
            serve_command(uri, port=port, host="127.0.0.1"),
            env=serve_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_up(server, f"http://127.0.0.1:{port}/ping", log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            # The server starts workers of its own: all of its session is ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, 15)
            server.wait(timeout=30)


def _wait_until_up(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    from medvision.errors import TryAgainLater

    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(url, timeout=5)
            return
        time.sleep(0.5)
    raise TryAgainLater(f"The model server did not start within {_START_S} s. It says why in {log}.")


def _ask(url: str, image: Path) -> Any:
    body = {"inputs": {"image": [base64.b64encode(image.read_bytes()).decode()]}}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())["predictions"][0]


def _test_image() -> Path:
    """Return an image that the model was neither trained nor chosen on."""
    dataset = prepare_dataset(configure(dataset_path=_SAMPLE, patient_pattern=_PATIENT_PATTERN))
    return dataset.manifest.root / dataset.manifest.rows.path[dataset.split.indices("test")[0]]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _what_next(registration: Registration) -> str:
    return f"""
Done: {registration.name} {registration.version} is registered. Look at it:

  . .venv/bin/activate
  mlflow ui                               runs, figures and the registered model, on http://127.0.0.1:5000
  tensorboard --logdir runs               curves
  results/simple_cnn/                     report, confusion matrix, verdict
  mlflow models serve -m "{registration.uri}" --env-manager local -p 5001

Your own images:

  python adapt_dataset.py --dataset-path DIR --name NAME
  mlflow run . -e pipeline --env-manager local -P dataset=NAME
"""


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(demo)
