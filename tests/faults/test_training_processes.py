"""Training on two devices, each with a process of its own: here two processes on the CPU that talk over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from medvision.data.loading import Batch, Ticket, TrainImages
from medvision.training.snapshots import load_best

pytestmark = pytest.mark.slow

EPOCHS = 3
TWO = {"performance": {"devices": 2}, "training": {"epochs": EPOCHS}}


class WatchedImages(TrainImages):
    """Writes down which samples were asked for, by which process."""

    def __getitems__(self, tickets: list[Ticket]) -> Batch:
        with Path(os.environ["WATCHED"]).open("a") as file:
            for epoch, position in tickets:
                file.write(json.dumps([os.getpid(), epoch, position]) + "\n")
        return super().__getitems__(tickets)


class PoisonedImages(TrainImages):
    """Has a label that no class has, once in the second epoch: a stand-in for a loss that is no number."""

    def __getitems__(self, tickets: list[Ticket]) -> Batch:
        images, labels = super().__getitems__(tickets)
        return (images * float("nan") if tickets[0][0] == 1 else images), labels


def main() -> None:
    """Train as told; print the result, or the error and its class."""
    import test_training_kills
    import test_training_processes

    from medvision.training import fit

    torch.set_num_threads(1)
    project, datasets, settings = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    fit.TrainImages = getattr(test_training_processes, datasets)  # type: ignore[misc]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        result = asdict(test_training_kills.train(project, "full", **settings))
    except Exception as error:
        result = {"error": type(error).__name__, "message": str(error)}
    print("\n" + json.dumps(result))


def start(project: Path, datasets: str, settings: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from test_training_processes import main; main()"]
    environment = {**os.environ, "WATCHED": str(project / "watched.jsonl"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(project), datasets, json.dumps(settings)],
        cwd=Path(__file__).parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(project: Path, datasets: str = "TrainImages", **settings: Any) -> dict[str, Any]:
    with start(project, datasets, {**TWO, **settings}) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return dict(json.loads(output.splitlines()[-1]))


@dataclass(frozen=True)
class Story:
    """One training on two processes."""

    project: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    project = tmp_path_factory.mktemp("two")
    return Story(project, run(project, "WatchedImages"))


def test_the_caller_gets_the_result(story):
    """The process that asked for the training gets its result."""
    assert story.result["n_epochs"] == EPOCHS
    assert 0 <= story.result["best_val_accuracy"] <= 1


def test_every_sample_is_seen_once_an_epoch(story):
    """Over both processes each training sample is seen once an epoch, and each process sees half of them."""
    lines = [json.loads(line) for line in (story.project / "watched.jsonl").read_text().splitlines()]
    seen = Counter((epoch, position) for _, epoch, position in lines)
    assert seen == Counter({(epoch, position): 1 for epoch in range(EPOCHS) for position in range(48)})
    assert list(Counter(pid for pid, _, _ in lines).values()) == [24 * EPOCHS] * 2


def test_every_epoch_is_recorded_once(story):
    """The figures of each epoch are recorded by one process only."""
    lines = (story.project / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == list(range(EPOCHS))


def test_the_best_model_loads(story):
    """best_model.pth is that of the best epoch, with the names of a training in one process."""
    best = load_best(story.project / "checkpoints")
    assert (best["epoch"], best["val_acc"]) == (story.result["best_epoch"], story.result["best_val_accuracy"])
    assert all(name.startswith(("backbone.", "head.")) for name in best["model_state_dict"])


@pytest.mark.slow
def test_an_interrupted_training_resumes_to_equal_weights(story, tmp_path):
    """Two processes that were stopped after the first epoch and resumed reach the weights of two that were not."""
    from tests.faults.test_training_kills import hash_weights

    with start(tmp_path, "WatchedImages", TWO) as process:
        while not (tmp_path / "checkpoints" / "last.ckpt").is_file():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    time.sleep(3)  # the processes of the devices end when they find that their parent is gone
    assert run(tmp_path, "WatchedImages", resume=True) == story.result
    assert hash_weights(tmp_path) == hash_weights(story.project)


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_the_same_error_as_in_one_process(tmp_path):
    """NaN in the process of a device reaches the caller as NonFiniteLoss, with epoch and step."""
    result = run(tmp_path, "PoisonedImages")
    assert result["error"] == "NonFiniteLoss"
    assert "in epoch 1, step 3" in result["message"]


@pytest.mark.slow
def test_sigterm_ends_all_processes(tmp_path):
    """SIGTERM to the command ends it with 143 within seconds, and no process of a device trains on."""
    settings = {**TWO, "training": {"epochs": 100_000, "patience": 100_000}}
    with start(tmp_path, "WatchedImages", settings) as process:
        while not (tmp_path / "checkpoints" / "last.ckpt").is_file():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=30) == 143
    pids = {json.loads(line)[0] for line in (tmp_path / "watched.jsonl").read_text().splitlines()}
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_the_head_strategy_trains_on_two_processes(tmp_path):
    """A head on a frozen backbone trains on two processes as well."""
    assert run(tmp_path, training={"epochs": 2, "strategy": "head"})["n_epochs"] == 2


@pytest.mark.slow
def test_a_compiled_network_trains_on_two_processes(tmp_path):
    """torch.compile and several processes go together."""
    assert run(tmp_path, training={"epochs": 1}, performance={"devices": 2, "compile": True})["n_epochs"] == 1
