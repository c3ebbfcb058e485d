"""Ctrl-C and SIGTERM in the middle of a training: the runs end KILLED, and the training can go on."""

import signal

import pytest
from medvision_project import ON_DATASET, Project, finish, wait

# Three trainings: more than half a minute.
pytestmark = pytest.mark.slow

N_EPOCHS = 25
TRAINING = ("--model", "simple_cnn", "--epochs", str(N_EPOCHS), "--image-size", "16", *ON_DATASET)
LONG = "training.patience=1000 tracking.wandb=false"
PIPELINE = f"{LONG} paths.checkpoints=pipeline-checkpoints"


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Interrupt a training and, beside it in the same project, a pipeline, each after its first epoch; go on."""
    story = Project(tmp_path_factory.mktemp("interrupted"))
    training = story.start("medvision", "train", *TRAINING, "--set", LONG)
    pipeline = story.start("medvision", "pipeline", *TRAINING, "--set", PIPELINE)
    story.train = _interrupt(training, signal.SIGTERM, story.folder / "checkpoints")
    story.pipeline = _interrupt(pipeline, signal.SIGINT, story.folder / "pipeline-checkpoints")
    story.statuses = {run.data.tags["medvision.step"]: run.info.status for run in story.runs() if _is_shown(run)}
    story.n_before = len(story.json("checkpoints/simple_cnn_outputs/training_history.json"))
    story.train_run = next(run for run in story.runs("train") if "mlflow.parentRunId" not in run.data.tags)
    story.resumed = story.call("train", *TRAINING, "--resume", "--set", LONG)
    return story


def _interrupt(process, number, checkpoints):
    history = checkpoints / "simple_cnn_outputs" / "training_history.json"
    wait(lambda: history.exists() or process.poll() is not None, 120)
    process.send_signal(number)
    return finish(process)


def _is_shown(run):
    # Of the two trainings, the one that was started by itself.
    return run.data.tags["medvision.step"] != "train" or "mlflow.parentRunId" not in run.data.tags


def test_sigterm_ends_a_training(story):
    """A training that gets SIGTERM exits with 143, without a stack trace, and its run is KILLED."""
    assert story.train.code == 143, story.train.err
    assert "Traceback" not in story.train.err
    assert story.statuses["train"] == "KILLED"


def test_ctrl_c_ends_a_pipeline(story):
    """A pipeline that gets Ctrl-C exits with 130, without a stack trace."""
    assert story.pipeline.code == 130, story.pipeline.err
    assert "Traceback" not in story.pipeline.err


def test_no_run_of_a_pipeline_stays_running(story):
    """The interrupted step and its parent are KILLED, the steps before it FINISHED."""
    (parent,) = story.runs("pipeline")
    children = {run.data.tags["medvision.step"]: run.info.status for run in story.children(parent)}
    assert parent.info.status == "KILLED"
    assert children == {"audit": "FINISHED", "normalize": "FINISHED", "train": "KILLED"}


def test_an_interrupted_training_goes_on(story):
    """`train --resume` continues the same MLflow run, which ends FINISHED."""
    assert story.resumed.code == 0, story.resumed.err
    assert 0 < story.n_before < N_EPOCHS
    (run,) = (run for run in story.runs("train") if "mlflow.parentRunId" not in run.data.tags)
    assert (run.info.run_id, run.info.status) == (story.train_run.info.run_id, "FINISHED")


def test_an_interrupted_training_records_every_epoch_once(story):
    """After an interruption and a resume, MLflow has the figures of each epoch exactly once."""
    history = story.client.get_metric_history(story.train_run.info.run_id, "val_accuracy")
    assert sorted(point.step for point in history) == list(range(N_EPOCHS))
