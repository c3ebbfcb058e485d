"""What is recorded stands in MLflow, and no run is left running: checked against a real MLflow store."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from medvision.config import Config, load_config
from medvision.errors import GateFailed
from medvision.tracking.journal import Journal
from medvision.tracking.recorder import Recorder, open_run

MODEL_CODE = """
import mlflow
import pandas as pd


class Echo(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.label = open(context.artifacts["package"] + "/label.txt").read()

    def predict(self, context, model_input, params=None):
        return pd.DataFrame([{"label": self.label, "confidence": 0.9, "probabilities": {self.label: 0.9}}])


mlflow.models.set_model(Echo())
"""


@pytest.fixture
def client(store_uri: str) -> MlflowClient:
    return MlflowClient(store_uri)


def _fetch(client: MlflowClient, recorder: Recorder) -> Run:
    run_id = recorder.run_id()
    assert run_id is not None
    return client.get_run(run_id)


def test_params_tags_and_metrics_arrive(configure: Callable[..., Config], client: MlflowClient) -> None:
    """Settings have dotted names, and each figure keeps its step and the time at which it was recorded."""
    with open_run(configure(), step="train", name="train-resnet18") as recorder:
        recorder.params({"training": {"epochs": 5, "lr": None}})
        recorder.tags({"best_val_accuracy": 0.5})
        recorder.tags({"best_val_accuracy": 0.75})
        for step in range(3):
            recorder.metrics({"val_loss": step / 4}, step=step)
    run = _fetch(client, recorder)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "train-resnet18"
    assert run.data.params == {"training.epochs": "5", "training.lr": "None"}
    assert run.data.tags["best_val_accuracy"] == "0.75"
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    events = [event for event in Journal(recorder.folder).events() if "val_loss" in event.content.get("values", {})]
    assert [point.timestamp for point in history] == [event.at_ms for event in events]


def test_a_run_tells_where_it_was_made(configure: Callable[..., Config], client: MlflowClient) -> None:
    """Every run names its user, step, machine and packages, and how loaded the machine was."""
    with open_run(configure(), step="audit") as recorder:
        pass
    run = _fetch(client, recorder)
    assert run.data.tags["medvision.step"] == "audit"
    assert run.data.tags["mlflow.user"]
    assert run.data.tags["system.cpu"]
    assert run.data.metrics["system/process_memory_mb"] > 1
    listing = client.download_artifacts(run.info.run_id, "environment/packages.txt")
    assert "mlflow==" in Path(listing).read_text()


def test_the_commit_is_recorded(project: Path, configure: Callable[..., Config], client: MlflowClient) -> None:
    """A run in a git checkout names the commit, and whether files differ from it."""
    import subprocess

    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "MLproject"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    with open_run(configure(), step="audit") as recorder:
        pass
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True)
    tags = _fetch(client, recorder).data.tags
    assert tags["mlflow.source.git.commit"] == commit.stdout.strip()
    assert tags["medvision.git_dirty"] == "false"


def test_artifacts_arrive_as_they_were(project: Path, configure: Callable[..., Config], client: MlflowClient) -> None:
    """Files and folders arrive as they were when recorded, and the kept copies are deleted afterwards."""
    report, folder = project / "report.txt", project / "best_model"
    report.write_text("first")
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"w")
    with open_run(configure(), step="train") as recorder:
        recorder.artifact(report, "reports")
        recorder.artifact(folder)
        report.write_text("second")
    run_id = _fetch(client, recorder).info.run_id
    assert Path(client.download_artifacts(run_id, "reports/report.txt")).read_text() == "first"
    assert Path(client.download_artifacts(run_id, "best_model/weights.bin")).read_bytes() == b"w"
    assert not Journal(recorder.folder).files_dir.exists()


def test_datasets_are_inputs(configure: Callable[..., Config], client: MlflowClient) -> None:
    """The data of a run stand among its inputs, with their fingerprint and what they were used for."""
    with open_run(configure(), step="train") as recorder:
        recorder.dataset("brain-mri", digest="ab" * 32, source="/data/brain", profile={"images": 3}, context="train")
    (found,) = _fetch(client, recorder).inputs.dataset_inputs
    assert found.dataset.name == "brain-mri"
    assert found.dataset.digest == ("ab" * 32)[:36]
    assert "ab" * 32 in found.dataset.profile
    assert [tag.value for tag in found.tags] == ["train"]


def test_a_nested_run_names_its_parent(configure: Callable[..., Config], client: MlflowClient) -> None:
    """The runs of a pipeline's steps stand below the pipeline's run."""
    config = configure()
    with open_run(config, step="pipeline") as parent, open_run(config, step="train", parent=parent) as child:
        pass
    assert _fetch(client, child).data.tags["mlflow.parentRunId"] == parent.run_id()


def test_the_model_answers(
    project: Path, configure: Callable[..., Config], client: MlflowClient, store_uri: str
) -> None:
    """A recorded model package is an MLflow model of the run, known by its id before the run ends, and answers."""
    import mlflow

    (project / "package").mkdir()
    (project / "package" / "label.txt").write_text("glioma")
    (project / "model_code.py").write_text(MODEL_CODE)
    with open_run(configure(), step="train") as recorder:
        recorder.model(
            "model",
            package_dir=project / "package",
            code_path=project / "model_code.py",
            pip_requirements=["medvision"],
            metadata={"run_key": recorder.run_key},
        )
        assert recorder.flush(60)
        model_id = recorder.model_id()
    model = client.get_logged_model(str(model_id))
    assert (model.source_run_id, model.status.value, model.name) == (recorder.run_id(), "READY", "model")
    mlflow.set_tracking_uri(store_uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    assert loaded.metadata.model_id == model_id
    assert loaded.metadata.get_input_schema().input_names() == ["image"]
    assert loaded.predict([{"image": "aGk="}])["label"].tolist() == ["glioma"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("broken"), "FAILED"),
        (GateFailed("too weak"), "FAILED"),
        (SystemExit(3), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_no_run_is_left_running(
    configure: Callable[..., Config], client: MlflowClient, error: BaseException, status: str
) -> None:
    """A run that ends by an error ends as FAILED or KILLED, and the error goes on."""
    with pytest.raises(type(error)), open_run(configure(), step="train") as recorder:
        raise error
    assert _fetch(client, recorder).info.status == status


def test_a_continued_run_is_the_same_run(configure: Callable[..., Config], client: MlflowClient) -> None:
    """A run that is opened again by its key goes on in the same MLflow run, and repeated figures stand once."""
    with open_run(configure(), step="train") as first:
        first.params({"epochs": 2})
        first.metrics({"loss": 0.5}, step=0)
    with open_run(configure(), step="train", run_key=first.run_key) as second:
        second.params({"epochs": 2})
        second.metrics({"loss": 0.5}, step=0)
        second.metrics({"loss": 0.25}, step=1)
        assert second.flush(60)
        assert _fetch(client, second).info.status == "RUNNING"
    run = _fetch(client, second)
    assert (second.run_id(), run.info.status) == (first.run_id(), "FINISHED")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.25)]


def test_a_run_goes_on_without_its_outbox(configure: Callable[..., Config], client: MlflowClient) -> None:
    """A continued run whose journal was deleted is found in MLflow by its key."""
    import shutil

    with open_run(configure(), step="train") as first:
        pass
    run_id = first.run_id()
    shutil.rmtree(first.folder)
    with open_run(configure(), step="train", run_key=first.run_key) as second:
        pass
    assert second.run_id() == run_id


def test_the_launchers_run_is_taken_over(
    configure: Callable[..., Config],
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Under ``mlflow run`` the launcher's run is ours, once; what it has logged stays."""
    experiment_id = client.create_experiment("launched")
    launched = client.create_run(experiment_id, tags={"mlflow.source.name": "project"})
    client.log_param(launched.info.run_id, "epochs", "50")
    monkeypatch.setenv("MLFLOW_RUN_ID", launched.info.run_id)
    with open_run(configure(), step="train") as recorder:
        recorder.params({"epochs": 5, "model": "resnet18"})
    with open_run(configure(), step="evaluate") as another:
        pass
    run = _fetch(client, recorder)
    assert run.info.run_id == launched.info.run_id
    assert run.data.params == {"epochs": "50", "model": "resnet18"}
    assert run.data.tags["mlflow.source.name"] == "project"
    assert "keeps param epochs as 50" in caplog.text
    assert another.run_id() != launched.info.run_id


def test_another_process_can_record(configure: Callable[..., Config], client: MlflowClient) -> None:
    """A recorder that is handed to another process records there, into the same run."""
    with open_run(configure(), step="train") as recorder:
        child = multiprocessing.get_context("spawn").Process(target=recorder.metrics, args=({"val_loss": 0.25}, 7))
        child.start()
        child.join()
    (point,) = client.get_metric_history(str(recorder.run_id()), "val_loss")
    assert (point.step, point.value) == (7, 0.25)


def test_class_names_may_hold_anything(configure: Callable[..., Config], client: MlflowClient) -> None:
    """A class name that MLflow does not allow in a metric's name does not cost the metric, nor those beside it."""
    with open_run(configure(), step="evaluate") as recorder:
        recorder.metrics({"sensitivity/No (tumor)": 0.5, "accuracy": 0.75}, step=0)
        recorder.metrics({"a//b": 0.5}, step=0)
        recorder.metrics({"auroc": 0.9}, step=0)
    metrics = _fetch(client, recorder).data.metrics
    assert metrics["sensitivity/No _tumor_"] == 0.5
    assert (metrics["accuracy"], metrics["auroc"]) == (0.75, 0.9)


def test_the_default_store_lies_in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting, database and artifacts lie in the project's root, from wherever the run is started."""
    below = project / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    config = load_config(overrides={"dataset.name": "phantom", "tracking.wandb": False, "tracking.drain_s": 60})
    with open_run(config, step="audit") as recorder:
        pass
    run = _fetch(MlflowClient(f"sqlite:///{project / 'mlflow.db'}"), recorder)
    assert run.info.artifact_uri == str(project / "mlruns" / "phantom" / run.info.run_id / "artifacts")
    assert sorted(path.name for path in below.iterdir()) == []


def test_wandb_never_stops_a_run(
    project: Path, configure: Callable[..., Config], client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A W&B that can't work is switched off with one warning, and the run goes on."""
    (project / "wandb").write_text("in the way")
    with caplog.at_level(logging.WARNING), open_run(configure(wandb=True), step="train") as recorder:
        recorder.metrics({"loss": 0.5}, step=0)
        recorder.metrics({"loss": 0.25}, step=1)
    assert _fetch(client, recorder).info.status == "FINISHED"
    assert caplog.text.count("wandb is off") == 1
