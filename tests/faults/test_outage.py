"""The tracking server may be down at any moment: recording goes on, and every metric arrives once when it is back.

One story with a real server, which costs a quarter of a minute a start, is played once; each test checks a promise:
a run records while the server is down and ends; two runs lose the server half-way, of which one is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient

from medvision.config import Config, load_config
from medvision.tracking.journal import Journal
from medvision.tracking.recorder import Recorder, open_run
from medvision.tracking.sync import SyncReport, sync

N_STEPS = 100

# A training in a process of its own: it records as many steps as it is told, and is killed while it waits.
TRAINING = """
import sys
from pathlib import Path
from test_outage import configure, record
from medvision.tracking.recorder import open_run

with open_run(configure(Path(sys.argv[1]), sys.argv[2], drain_s=30), step="train") as recorder:
    print(recorder.run_key, flush=True)
    for line in sys.stdin:
        record(recorder, first_step=int(line))
        if int(line) == 0:
            recorder.flush(60)
        print("recorded", flush=True)
"""


class Server:
    """A real MLflow server, that can be killed and started again on the same port and database."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, OSError):
            return bool(urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200)
        return False


@dataclass
class Story:
    """What happened: keys and settings of the runs, what the calls cost, and what ``sync`` said."""

    config: Config
    client: MlflowClient
    keys: dict[str, str] = field(default_factory=dict)
    calls_ms: list[float] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    reports: list[SyncReport] = field(default_factory=list)


def configure(root: Path, uri: str, drain_s: float) -> Config:
    overrides = {"dataset.name": "phantom", "tracking.uri": uri, "tracking.drain_s": drain_s, "tracking.wandb": False}
    paths = {f"paths.{name}": str(root / name) for name in ("state", "tensorboard")}
    return load_config(overrides={**overrides, **paths})


def record(recorder: Recorder, first_step: int) -> list[float]:
    """Record ``N_STEPS`` steps; return what each call cost, in milliseconds."""
    calls_ms = []
    for step in range(first_step, first_step + N_STEPS):
        start = time.perf_counter()
        recorder.metrics({"loss": step / 1000, "accuracy": 1 - step / 1000}, step=step)
        calls_ms.append((time.perf_counter() - start) * 1000)
    return calls_ms


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def story(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("project")
    story = Story(configure(root, server.uri, drain_s=1), MlflowClient(server.uri))

    patient = configure(root, server.uri, drain_s=60)
    with _training(root, server.uri) as training:
        _record_without_server(story, root)
        server.start()
        story.reports.append(sync(story.config, timeout_s=60))
        assert training.stdout
        story.keys["killed"] = training.stdout.readline().strip()
        _tell(training, 0)
        with open_run(patient, step="train") as recorder:
            story.keys["middle"] = recorder.run_key
            record(recorder, first_step=0)
            assert recorder.flush(60)
            server.kill()
            story.calls_ms += record(recorder, first_step=N_STEPS)
            _tell(training, N_STEPS)
            training.kill()
            server.start()
    story.reports.append(sync(patient, timeout_s=60))
    yield story


def _record_without_server(story: Story, root: Path) -> None:
    (root / "report.txt").write_text("as recorded")
    messages = logging.StreamHandler(stream := _Lines())
    logging.getLogger("medvision").addHandler(messages)
    with open_run(story.config, step="pipeline") as pipeline:
        story.keys["pipeline"] = pipeline.run_key
        with open_run(story.config, step="train", parent=pipeline) as recorder:
            story.keys["start"] = recorder.run_key
            story.calls_ms += record(recorder, first_step=0) + record(recorder, first_step=N_STEPS)
            recorder.artifact(root / "report.txt", "reports")
    logging.getLogger("medvision").removeHandler(messages)
    story.logs["start"] = stream.text
    (root / "report.txt").write_text("changed since")


class _Lines:
    text = ""

    def write(self, text: str) -> None:
        self.text += text


@contextlib.contextmanager
def _training(root: Path, uri: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", TRAINING, str(root), uri]
    folder = Path(__file__).parent
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        try:
            yield training
        finally:
            training.kill()


def _tell(training: subprocess.Popen[str], first_step: int) -> None:
    assert training.stdin
    assert training.stdout
    print(first_step, file=training.stdin, flush=True)
    assert training.stdout.readline() == "recorded\n"


def _history(story: Story, key: str, name: str) -> list[tuple[int, float, int]]:
    run_id = Recorder(story.config.paths.state / "outbox" / key).run_id()
    assert run_id is not None
    return sorted((point.step, point.value, point.timestamp) for point in story.client.get_metric_history(run_id, name))


def _recorded(story: Story, key: str, name: str) -> list[tuple[int, float, int]]:
    events = Journal(story.config.paths.state / "outbox" / key).events()
    return sorted(
        (event.content["step"], event.content["values"][name], event.at_ms)
        for event in events
        if event.kind == "metrics" and name in event.content["values"]
    )


@pytest.mark.parametrize("run", ["start", "middle", "killed"])
@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_every_metric_arrives_exactly_once(story: Story, run: str, name: str) -> None:
    """Step, value and time of every figure stand in MLflow once, whenever the server was down, whoever was killed."""
    history = _history(story, story.keys[run], name)
    assert [step for step, _, _ in history] == list(range(2 * N_STEPS))
    assert history == _recorded(story, story.keys[run], name)


@pytest.mark.parametrize(("run", "status"), [("start", "FINISHED"), ("middle", "FINISHED"), ("killed", "KILLED")])
def test_every_run_is_ended(story: Story, run: str, status: str) -> None:
    """No run is left running: one that was killed is ended as KILLED, when it last recorded something."""
    journal = Journal(story.config.paths.state / "outbox" / story.keys[run])
    info = story.client.get_run(str(Recorder(journal.folder).run_id())).info
    assert (info.status, info.end_time) == (status, journal.events()[-1].at_ms)


def test_recording_stays_quick(story: Story) -> None:
    """While the server is down, recording a step takes less than 50 ms (median)."""
    assert statistics.median(story.calls_ms) < 50


def test_a_run_without_server_ends_and_says_so(story: Story) -> None:
    """A run whose server never came ends normally, and says how many events are pending and what to do."""
    assert "events are pending; run `medvision sync`" in story.logs["start"]


def test_sync_delivers_what_was_left_behind(story: Story) -> None:
    """``sync`` delivers a run and those nested in it, leaves living runs to themselves, and leaves nothing pending."""
    assert story.reports[0].runs == (story.keys["pipeline"], story.keys["start"])
    assert [report.pending for report in story.reports] == [0, 0]


def test_a_nested_run_keeps_its_place(story: Story) -> None:
    """A run that was recorded during an outage stands below its parent."""
    outbox = story.config.paths.state / "outbox"
    run = story.client.get_run(str(Recorder(outbox / story.keys["start"]).run_id()))
    assert run.data.tags["mlflow.parentRunId"] == Recorder(outbox / story.keys["pipeline"]).run_id()


def test_the_next_run_brings_in_a_killed_one(story: Story) -> None:
    """A run that ends while the server answers also delivers what a killed run left: ``sync`` finds nothing to do."""
    assert story.reports[1].runs == ()


def test_artifacts_arrive_as_they_were(story: Story) -> None:
    """An artifact that was recorded during an outage arrives as it was then."""
    run_id = str(Recorder(story.config.paths.state / "outbox" / story.keys["start"]).run_id())
    assert Path(story.client.download_artifacts(run_id, "reports/report.txt")).read_text() == "as recorded"
