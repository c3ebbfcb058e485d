"""A training that is killed at any moment and resumed ends with the very weights of one that was not.

Trainings run in processes of their own, forked from one that has imported everything: an import costs seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KINDS = ("full", "head", "stopped")
EPOCHS = 4


class LineRecorder:
    """Appends the figures of each epoch to a file, without any protection: what counts is which epochs came."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def params(self, values: dict[str, Any]) -> None: ...

    def tags(self, values: dict[str, Any]) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None: ...

    def metrics(self, values: dict[str, float], step: int) -> None:
        figures = {name: value for name, value in values.items() if name != "epoch_seconds"}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps([step, figures]) + "\n")


def train(project: Path, kind: str, *, resume: bool = False, recorder: Any = None, **settings: dict[str, Any]) -> Any:
    """Train a small network with dropout on augmented noise; ``kind`` is a strategy, or a training that stops early.

    ``settings`` are sections of the config: training, performance.
    """
    import numpy as np
    import torch

    from medvision.config import Config, PathsConfig, PerformanceConfig, Recipe
    from medvision.models.catalog import Architecture
    from medvision.models.network import build_network
    from medvision.training.fit import LabelledImages, fit

    labels = np.tile(np.arange(3), 20)
    noise = np.random.default_rng(0).integers(0, 156, size=(60, 16, 16, 3))
    images = (noise + 40 * labels[:, None, None, None]).astype(np.uint8)
    rows = np.arange(60)
    recipe = {"strategy": "head" if kind == "head" else "full", "optimizer": "adamw", "lr": 1e-3, "epochs": EPOCHS}
    recipe |= {"batch_size": 8, "patience": 2, "min_delta": 1.0 if kind == "stopped" else 0.0}
    if kind != "stopped":
        recipe["patience"] = EPOCHS
    config = Config(
        training=Recipe(**{**recipe, **settings.get("training", {})}),
        performance=PerformanceConfig(**{"accelerator": "cpu", **settings.get("performance", {})}),
        paths=PathsConfig(state=project / "state"),
    )
    torch.manual_seed(config.training.seed)
    architecture = Architecture("simple_cnn", "own", "medical", 3, 3, 16)
    network = build_network(architecture, mean=(0.4,) * 3, std=(0.2,) * 3, pretrained=False)
    return fit(
        network,
        LabelledImages(images, labels, rows[:48], rows[48:], 3, "noise"),
        config,
        recorder=recorder or LineRecorder(project / "metrics.jsonl"),
        folder=project / "checkpoints",
        resume=resume,
    )


def hash_weights(project: Path) -> tuple[str, str]:
    """Return the SHA-256 of weights, optimizer, epoch and accuracy of best_model.pth, and of what last.ckpt resumes."""
    import torch

    best = torch.load(project / "checkpoints" / "best_model.pth", weights_only=True)
    last = torch.load(project / "checkpoints" / "last.ckpt", weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch", "global_step")
    del best["config"]  # has the paths of the test
    return _hash(best), _hash({name: last[name] for name in kept})


def _hash(content: Any) -> str:
    import torch

    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(str((value.dtype, value.shape)).encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for name in value:
                digest.update(str(name).encode())
                add(value[name])
        elif isinstance(value, list | tuple):
            for part in value:
                add(part)
        else:
            digest.update(repr(value).encode())

    add(content)
    return digest.hexdigest()


def die_at(function: str, call: int) -> None:
    """Kill this process at the n-th call of a function of os: in the middle of writing a file."""
    original = getattr(os, function)
    calls = [0]

    def dying(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(os, function, dying)


def serve() -> None:
    """Fork a training for each line of standard input; print its process id, then how it ended and how long it took."""
    import albumentations  # noqa: F401
    import torch

    import medvision.training.fit  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _run_child(order)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), time.monotonic() - started, flush=True)


def _run_child(order: dict[str, Any]) -> None:
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        if order["die_at"]:
            die_at(*order["die_at"])
        train(Path(order["project"]), order["kind"], resume=order["resume"])
        code = 0
    finally:
        os._exit(code)


@dataclass
class Trainer:
    """Runs trainings, one after the other, each in a process that can be killed."""

    process: subprocess.Popen[str]

    def run(
        self,
        project: Path,
        kind: str,
        *,
        resume: bool = False,
        kill_after_s: float | None = None,
        die_at: tuple[str, int] | None = None,
    ) -> tuple[int, float]:
        """Return the exit code, -9 if killed, and the seconds that it took."""
        order = {"project": str(project), "kind": kind, "resume": resume, "die_at": die_at}
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(order), file=self.process.stdin, flush=True)
        pid = int(self.process.stdout.readline())
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):  # it had ended already
                os.kill(pid, signal.SIGKILL)
        code, seconds = self.process.stdout.readline().split()
        return int(code), float(seconds)


@dataclass(frozen=True)
class Reference:
    """An uninterrupted training."""

    hashes: tuple[str, str]
    metrics: list[str]
    seconds: float


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    command = [sys.executable, "-c", "from test_training_kills import serve; serve()"]
    folder = Path(__file__).parent
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Trainer(process)
        process.kill()


@pytest.fixture(scope="module")
def references(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """Return the uninterrupted training of a kind."""
    made: dict[str, Reference] = {}

    def reference(kind: str) -> Reference:
        if kind not in made:
            project = tmp_path_factory.mktemp(kind)
            assert trainer.run(project, kind)[0] == 0
            # The first run reads libraries from the disk: how long the others take, a second one tells.
            _, seconds = trainer.run(tmp_path_factory.mktemp(kind), kind)
            made[kind] = Reference(hash_weights(project), _metrics(project), seconds)
        return made[kind]

    return reference


@pytest.fixture
def resumed_equals(trainer: Trainer, references: Callable[[str], Reference], tmp_path: Path) -> Callable[..., None]:
    """Kill a training, resume it until it ends, and compare it with an uninterrupted one."""

    def check(kind: str, **kill: Any) -> None:
        reference = references(kind)
        code, _ = trainer.run(tmp_path, kind, **kill)
        assert code in (0, -signal.SIGKILL)
        assert trainer.run(tmp_path, kind, resume=True)[0] == 0
        assert hash_weights(tmp_path) == reference.hashes
        assert _metrics(tmp_path) == reference.metrics
        assert not list((tmp_path / "checkpoints").glob(".*.tmp"))

    return check


def _metrics(project: Path) -> list[str]:
    # An epoch that was recorded and then repeated must have had the same figures: a recorder keeps the first.
    return sorted(set((project / "metrics.jsonl").read_text().splitlines()))


def _moments(n: int) -> list[float]:
    return [random.Random(42 + i).random() for i in range(n)]


@pytest.mark.parametrize("kind", ["full", "head"])
@pytest.mark.parametrize("moment", _moments(2))
def test_a_killed_training_resumes_to_equal_weights(resumed_equals, references, kind, moment):
    """Killed at a random moment and resumed, best and last weights and all figures equal those without a kill."""
    resumed_equals(kind, kill_after_s=moment * references(kind).seconds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", _moments(20))
def test_twenty_killed_trainings_resume_to_equal_weights(resumed_equals, references, kind, moment):
    """The same at 20 random moments."""
    resumed_equals(kind, kill_after_s=moment * references(kind).seconds)


@pytest.mark.parametrize(
    ("kind", "function", "call"),
    [
        ("full", "replace", 1),  # the first best model is written, but not in its place
        ("full", "replace", 2),  # between best and last
        ("full", "fsync", 9),  # in the second epoch, the file not yet on the disk
        ("head", "replace", 1),  # in the embeddings
        ("head", "replace", 5),
        ("stopped", "replace", 7),  # after the decision to stop, before the last checkpoint
    ],
)
def test_a_kill_inside_a_write_costs_nothing(resumed_equals, kind, function, call):
    """Killed between writing a file and putting it in its place, a training resumes to equal weights."""
    resumed_equals(kind, die_at=(function, call))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("call", range(1, 15))
def test_a_kill_inside_any_write_costs_nothing(resumed_equals, kind, function, call):
    """The same at every write of the first epochs."""
    resumed_equals(kind, die_at=(function, call))


def test_killed_again_and_again_it_still_arrives(trainer, references, tmp_path):
    """Killed in every epoch anew, a training still ends with equal weights."""
    for _ in range(2 * EPOCHS):
        code, _ = trainer.run(tmp_path, "full", resume=True, die_at=("replace", 4))
        if code == 0:
            break
    assert code == 0
    assert hash_weights(tmp_path) == references("full").hashes


def test_resuming_needs_no_former_run(trainer, references, tmp_path):
    """A training that was killed before its first checkpoint is resumed from the start."""
    assert trainer.run(tmp_path, "full", resume=True)[0] == 0
    assert hash_weights(tmp_path) == references("full").hashes
