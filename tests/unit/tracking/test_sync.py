"""``sync`` copes with whatever a kill leaves in the outbox."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from medvision.config import Config
from medvision.tracking.journal import Journal, outbox
from medvision.tracking.recorder import Recorder, open_run
from medvision.tracking.sync import sync


@pytest.fixture
def dead_uri() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_run_that_was_killed_before_it_began_harms_no_other(configure: Callable[..., Config], dead_uri: str) -> None:
    """A journal without one whole line is left alone, and the others are delivered."""
    with open_run(configure(uri=dead_uri, drain_s=0), step="train") as recorder:
        pass
    config = configure()
    torn = outbox(config.paths.state) / "torn"
    torn.mkdir()
    (torn / "events.jsonl").write_text('{"kind": "sta')
    report = sync(config, timeout_s=60)
    assert (report.runs, report.pending) == ((recorder.run_key,), 0)
    assert recorder.run_id()


def test_a_run_whose_parent_is_gone_is_delivered(
    configure: Callable[..., Config], store_uri: str, dead_uri: str
) -> None:
    """A nested run whose parent's journal was deleted is worth more than its place below it."""
    nowhere = Recorder(outbox(configure().paths.state) / "deleted")
    with open_run(configure(uri=dead_uri, drain_s=0), step="train", parent=nowhere) as recorder:
        pass
    assert sync(configure(), timeout_s=60).pending == 0
    assert "mlflow.parentRunId" not in MlflowClient(store_uri).get_run(str(recorder.run_id())).data.tags


def test_sync_stops_in_time(configure: Callable[..., Config], dead_uri: str) -> None:
    """Without a server, ``sync`` says what is pending when its time is over."""
    config = configure(uri=dead_uri, drain_s=0)
    with open_run(config, step="train") as recorder:
        recorder.metrics({"loss": 0.5}, step=0)
    start = time.monotonic()
    report = sync(config, timeout_s=3)
    assert time.monotonic() - start < 8
    assert (report.delivered, report.pending) == (0, len(Journal(recorder.folder).events()))


def test_a_nested_run_does_not_wait_for_a_dead_server(configure: Callable[..., Config], dead_uri: str) -> None:
    """The time to wait for the server is spent once, by the outermost run, and not by each step of a pipeline."""
    config = configure(uri=dead_uri, drain_s=6)
    with open_run(config, step="pipeline") as pipeline:
        start = time.monotonic()
        with open_run(config, step="train", parent=pipeline):
            pass
        assert time.monotonic() - start < 5


def test_credentials_are_not_written_down(configure: Callable[..., Config]) -> None:
    """A password in the server's URI stands in no file of the outbox."""
    with open_run(configure(uri="http://user:secret@127.0.0.1:9", drain_s=0), step="train") as recorder:
        pass
    (start, *_) = Journal(recorder.folder).events()
    assert start.content["tracking_uri"] == "http://127.0.0.1:9"
    assert not any(b"secret" in path.read_bytes() for path in recorder.folder.rglob("*") if path.is_file())
