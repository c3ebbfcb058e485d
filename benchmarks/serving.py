"""The prediction service beside MLflow's own server and the bare predictor: one resnet18, 512 px JPEGs, the same cores.

Clients and server share the cores. Each client asks anew as soon as it is answered. The model has random weights, with
statistics of normalization that fit, and no verdict, which a variable allows for development; only time counts.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _table import Measurement, report
from PIL import Image

from medvision.models.catalog import find
from medvision.models.network import build_network
from medvision.models.package import describe, save_package
from medvision.serving.predictor import Predictor

ROOT = Path(__file__).parents[1]
CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")
PACKAGE = "checkpoints/resnet18_outputs/package"
MODEL = "bench-resnet18/1"
N_IMAGES = 32
CLIENTS, OVERLOAD = 8, 40
BOUNDARY = "benchmark"


@dataclass(frozen=True)
class Load:
    """What clients have seen: seconds of each answer, how many were refused or failed otherwise, and over how long."""

    seconds: np.ndarray
    n_refused: int
    n_failed: int
    wall_s: float

    @property
    def rate(self) -> float:
        """Return the answers a second."""
        return len(self.seconds) / self.wall_s

    def at(self, percent: float) -> float:
        """Return a percentile of the answers' times, milliseconds."""
        return 1000 * float(np.percentile(self.seconds, percent))

    def __str__(self) -> str:
        """Return the figures in a line."""
        others = f", {self.n_refused} refused, {self.n_failed} failed" if self.n_refused or self.n_failed else ""
        return f"{self.rate:.1f}/s, p50 {self.at(50):.0f}, p99 {self.at(99):.0f} ms{others}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    parser.add_argument("--without-audit", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.without_audit:
        return serve_without_audit(arguments.without_audit)
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder))
        return report("Serving a resnet18", measure(Path(folder), arguments.seconds), "Times are those of the clients.")


def measure(folder: Path, seconds: float) -> list[Measurement]:
    """Return the rows of the table."""
    images = make_images()
    forms = [_form(image) for image in images]
    bare = ask_predictor(folder, images, 2, seconds)
    found: dict[tuple[str, int], Load] = {}
    for engine, clients in (("onnx", (1, 2, CLIENTS, OVERLOAD)), ("torch", (CLIENTS,))):
        with serving(folder, engine) as port:
            for n in clients:
                found[engine, n] = asyncio.run(ask(port, "/api/v1/predict", forms, n, seconds))
    with serving_without_audit(folder) as port:
        silent = asyncio.run(ask(port, "/api/v1/predict", forms, 2, seconds))
    with serving_mlflow(folder) as port:
        theirs = asyncio.run(ask(port, "/invocations", [_json(image) for image in images], CLIENTS, seconds))
    ours, flooded = found["onnx", CLIENTS], found["onnx", OVERLOAD]
    return [
        Measurement(f"onnx, {CLIENTS} clients", ours.rate, 60, unit="/s", detail=str(ours)),
        Measurement("times mlflow models serve", ours.rate / theirs.rate, 5, detail=f"mlflow: {theirs}"),
        Measurement("torch, the same", found["torch", CLIENTS].rate, unit="/s", detail=str(found["torch", CLIENTS])),
        Measurement("onnx, 1 client", found["onnx", 1].rate, unit="/s", detail=str(found["onnx", 1])),
        Measurement(
            "p99 over the bare predictor", found["onnx", 2].at(99) - bare.at(99), 30, True, " ms", f"bare: {bare}"
        ),
        Measurement("the same without audit log", silent.at(99) - bare.at(99), 15, True, " ms", f"2 clients: {silent}"),
        Measurement(f"goodput of {OVERLOAD} clients", flooded.rate / ours.rate, 0.9, detail=str(flooded)),
        Measurement("failed under overload", flooded.n_failed, 0, True, ""),
    ]


def make_project(folder: Path) -> None:
    """Make a project whose registry has one model."""
    torch.manual_seed(42)
    network = build_network(
        find("resnet18").architecture(n_classes=4, channels=3), mean=(0.4,) * 3, std=(0.2,) * 3, pretrained=False
    )
    _enliven(network)
    lineage = dict.fromkeys(("manifest_fingerprint", "split_fingerprint", "run_key"), "benchmark")
    info = describe(
        network, name="bench-resnet18", dataset="bench", classes=CLASSES, best_epoch=0, best_val_accuracy=0.0, **lineage
    )
    save_package(folder / PACKAGE, info, [network])
    for name in ("MLproject", "config"):
        (folder / name).symlink_to(ROOT / name)
    command = ["register", "--model", "resnet18", "--unvalidated", "--set", "dataset.name=bench tracking.wandb=false"]
    subprocess.run([*_medvision(), *command], cwd=folder, env=_environment(), check=True, stdout=subprocess.DEVNULL)


def _enliven(network: torch.nn.Module) -> None:
    """Give each block of a fresh network weight: those of timm begin with zeros, which an exporter folds away."""
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():
        for _ in range(5):
            network(torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8))
    network.eval()


def make_images() -> list[bytes]:
    """Return JPEG files of 512 px: smooth shapes with grain, of the size that a scanner's export has."""
    generator, files = np.random.default_rng(0), []
    for _ in range(N_IMAGES):
        coarse = Image.fromarray(generator.integers(0, 256, (16, 16), dtype=np.uint8)).resize((512, 512), 3)
        grain = generator.normal(0, 6, (512, 512))
        file = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def ask_predictor(folder: Path, images: Sequence[bytes], n: int, seconds: float) -> Load:
    """Have so many threads ask the predictor itself."""
    predictor = Predictor(folder / PACKAGE, engine="onnx", cache=folder / "engines")
    times: list[float] = []
    end = time.perf_counter() + seconds

    def work(first: int) -> None:
        number = first
        while time.perf_counter() < end:
            start = time.perf_counter()
            predictor.predict([images[number % N_IMAGES]])
            times.append(time.perf_counter() - start)
            number += 1

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(work, range(n)))
    return Load(np.array(times), 0, 0, seconds)


async def ask(port: int, path: str, bodies: Sequence[tuple[str, bytes]], n: int, seconds: float) -> Load:
    """Have so many clients ask a server, each on one connection."""
    loads = await asyncio.gather(*(_client(port, path, bodies, number, seconds) for number in range(n)))
    times = [time_ for times, _, _ in loads for time_ in times]
    return Load(np.array(times), sum(each[1] for each in loads), sum(each[2] for each in loads), seconds)


async def _client(
    port: int, path: str, bodies: Sequence[tuple[str, bytes]], number: int, seconds: float
) -> tuple[list[float], int, int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times, refused, failed = [], 0, 0
    # The first second warms up, and is not counted.
    begin = time.perf_counter() + 1
    while (start := time.perf_counter()) < begin + seconds:
        kind, body = bodies[number % len(bodies)]
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status, stays = await _answer(reader)
        if start >= begin:
            if status == 200:
                times.append(time.perf_counter() - start)
            refused += status == 429
            failed += status not in (200, 429)
        if status == 429:
            await asyncio.sleep(0.1)
        if not stays:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number += 1
    writer.close()
    return times, refused, failed


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Return the status of an answer that is read to its end, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(head.split(" ")[1]), "connection: close" not in head


def _form(image: bytes) -> tuple[str, bytes]:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return f"multipart/form-data; boundary={BOUNDARY}", head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def _json(image: bytes) -> tuple[str, bytes]:
    return "application/json", json.dumps({"inputs": [base64.b64encode(image).decode()]}).encode()


@contextlib.contextmanager
def serving(folder: Path, engine: str) -> Iterator[int]:
    """Yield the port of medvision's service."""
    port = _free_port()
    command = [*_medvision(), "serve", MODEL, "--no-auth", "--engine", engine, "--port", str(port)]
    with _running(folder, command, port, "/readyz"):
        yield port


@contextlib.contextmanager
def serving_without_audit(folder: Path) -> Iterator[int]:
    """Yield the port of the service with an audit log that writes nothing, which nobody can ask for but this script."""
    port = _free_port()
    with _running(folder, [sys.executable, __file__, "--without-audit", str(port)], port, "/livez"):
        yield port


@contextlib.contextmanager
def serving_mlflow(folder: Path) -> Iterator[int]:
    """Yield the port of MLflow's server for the same model."""
    port = _free_port()
    command = [*_medvision(), "serve-mlflow", "--model", MODEL, "--port", str(port)]
    with _running(folder, command, port, "/ping"):
        yield port


def serve_without_audit(port: int) -> int:
    """Serve in this process until it is ended."""
    from medvision.serving import opening

    class Silent:
        is_available = True

        def commit(self, entries: Sequence[Any]) -> Future[None]:
            done: Future[None] = Future()
            done.set_result(None)
            return done

        def close(self) -> None:
            pass

    from medvision.cli import main as command

    with mock.patch.object(opening, "AuditLog", mock.Mock(open=lambda url: Silent())):
        command(["serve", MODEL, "--no-auth", "--port", str(port)])
    return 0


@contextlib.contextmanager
def _running(folder: Path, command: list[str], port: int, path: str) -> Iterator[None]:
    with subprocess.Popen(
        command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:  # fmt: skip
        try:
            _wait(f"http://127.0.0.1:{port}{path}", server)
            yield
        finally:
            os.killpg(server.pid, 15)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server has ended"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=1).close()
            return
        time.sleep(0.1)
    raise TimeoutError(url)


def _medvision() -> list[str]:
    return [str(Path(sys.executable).parent / "medvision")]


def _environment() -> dict[str, str]:
    return {**os.environ, "MEDVISION_UNVALIDATED": "allow"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
