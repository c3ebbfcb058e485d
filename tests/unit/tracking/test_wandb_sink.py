"""W&B holds the same run, offline without a key; read back from the file that it writes."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from medvision.config import Config
from medvision.tracking.recorder import Recorder, open_run

# Kinds of chunk in LevelDB's log.
_WHOLE, _LAST = 1, 4


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Stand where W&B's server would: whoever calls is counted."""
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    return server


@pytest.fixture
def recorder(project: Path, configure: Callable[..., Config], listener: socket.socket) -> Recorder:
    checkpoint = project / "best_model.pth"
    checkpoint.write_bytes(b"weights")
    with open_run(configure(wandb=True), step="train") as recorder:
        recorder.params({"training": {"epochs": 2}})
        recorder.metrics({"val_accuracy": 0.5}, step=0)
        recorder.metrics({"val_accuracy": 0.75}, step=1)
        recorder.tags({"best_val_accuracy": 0.75, "best_model_epoch": 1, "final_best_val_accuracy": 0.75})
        recorder.artifact(checkpoint, "best_model")
        for name in ("roc_curve.png", "worst_mistakes.png", "predictions.parquet"):
            (project / name).write_bytes(b"report")
            recorder.artifact(project / name, "evaluation")
    return recorder


def _records(folder: Path) -> list[Any]:
    """Read W&B's file: blocks of 32 KiB, that hold records, or parts of records, in the manner of LevelDB's log."""
    data = next(folder.glob("*.wandb")).read_bytes()
    records, body, offset = [], b"", 7
    while offset + 7 <= len(data):
        left_in_block = 2**15 - offset % 2**15
        if left_in_block < 7:
            offset += left_in_block
            continue
        length, part = struct.unpack_from("<HB", data, offset + 4)
        body += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if part in (_WHOLE, _LAST):
            records.append(Record.FromString(body))
            body = b""
    return records


def _run_folder(project: Path, recorder: Recorder) -> Path:
    (folder,) = (project / "wandb").glob(f"offline-run-*-{recorder.run_key}")
    return folder


def test_without_a_key_nobody_is_called(project: Path, recorder: Recorder, listener: socket.socket) -> None:
    """Without a key the run is written to the project's folder, and no connection is made."""
    assert _run_folder(project, recorder).is_dir()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_summary_and_checkpoint(project: Path, recorder: Recorder) -> None:
    """The best figures stand in the summary, and the best checkpoint among the files."""
    folder = _run_folder(project, recorder)
    summary: dict[str, Any] = {}
    for record in _records(folder):
        summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
    assert summary["best_val_accuracy"] == 0.75
    assert summary["best_model_epoch"] == 1
    assert summary["final_best_val_accuracy"] == 0.75
    assert (folder / "files" / "best_model.pth").read_bytes() == b"weights"


def test_reports_are_among_the_files_and_patients_are_not(recorder: Recorder, project: Path) -> None:
    """A report's picture is kept; what shows images or rows of patients does not go to a service elsewhere."""
    (folder,) = (project / "wandb").glob("offline-run-*")
    assert [path.name for path in (folder / "files" / "evaluation").iterdir()] == ["roc_curve.png"]


def test_every_figure_has_its_epoch(project: Path, recorder: Recorder) -> None:
    """Each figure stands in the history beside its epoch."""
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in _records(_run_folder(project, recorder))
        if record.HasField("history")
    ]
    assert [(row["epoch"], row["val_accuracy"]) for row in rows if "val_accuracy" in row] == [(0, 0.5), (1, 0.75)]


def test_ids_are_crosswise(project: Path, recorder: Recorder, store_uri: str) -> None:
    """MLflow names the W&B run, and W&B the MLflow run."""
    from mlflow import MlflowClient

    run_id = str(recorder.run_id())
    assert MlflowClient(store_uri).get_run(run_id).data.tags["wandb.run_id"] == recorder.run_key
    config = {
        item.key: json.loads(item.value_json)
        for record in _records(_run_folder(project, recorder))
        for item in [*record.config.update, *record.run.config.update]
    }
    assert config["mlflow_run_key"] == recorder.run_key
    assert config["mlflow_run_id"] == run_id
