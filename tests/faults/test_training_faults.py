"""What a training does when the disk is full, the loss is no number, memory runs out, or a signal comes."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medvision import files
from medvision.errors import DiskFull, MedvisionError, NonFiniteLoss
from medvision.models.network import Network
from medvision.training.classifier import Classifier
from medvision.training.snapshots import BEST, LAST, load_best
from tests.faults.test_training_kills import EPOCHS, LineRecorder, hash_weights, train


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount an empty disk of so many megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size_mb: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small disk needs root")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def epochs_recorded(project: Path) -> list[int]:
    return [json.loads(line)[0] for line in (project / "metrics.jsonl").read_text().splitlines()]


def names(project: Path) -> set[str]:
    return {path.name for path in (project / "checkpoints").iterdir()}


class FailsAt:
    """Does nothing at first, and fails at the n-th call and ever after."""

    def __init__(self, call: int, error: OSError) -> None:
        self._left, self._error = call, error

    def __call__(self, handle: int) -> None:
        self._left -= 1
        if self._left <= 0:
            raise self._error


# Without batch norm's statistics a checkpoint of this network is 14 MB with its optimizer; an epoch leaves two.
@pytest.mark.parametrize("size_mb", [20, 32, 44])
def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk, tmp_path, size_mb):
    """On a full disk training stops with exit code 75, and what was saved before loads; no half file is left."""
    disk = small_disk(size_mb)
    recipe = {"training": {"save_every": 1}, "recorder": LineRecorder(tmp_path / "metrics.jsonl")}
    with pytest.raises(DiskFull, match="--resume for a training") as caught:
        train(disk, "full", **recipe)
    assert caught.value.exit_code == 75
    assert not [name for name in names(disk) if name.endswith(".tmp")]
    for path in (disk / "checkpoints").glob("*.pth"):
        assert torch.load(path, weights_only=True)["model_state_dict"]
    if LAST in names(disk):
        assert torch.load(disk / "checkpoints" / LAST, weights_only=True)["state_dict"]


def test_after_a_full_disk_training_is_resumed(monkeypatch, tmp_path):
    """A training that a full disk stopped ends, once there is space, with the weights of an undisturbed one."""
    train(tmp_path / "undisturbed", "full")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", FailsAt(9, OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(DiskFull):
            train(tmp_path / "full", "full")
    train(tmp_path / "full", "full", resume=True)
    assert hash_weights(tmp_path / "full") == hash_weights(tmp_path / "undisturbed")


@pytest.mark.parametrize(("call", "code"), [*((call, errno.ENOSPC) for call in range(1, 7)), (3, errno.EDQUOT)])
def test_no_write_survives_a_full_disk_half(monkeypatch, tmp_path, call, code):
    """Whichever write meets the full disk, or the full quota, the error is DiskFull and no temporary file is left."""
    monkeypatch.setattr(files.os, "fsync", FailsAt(call, OSError(code, os.strerror(code))))
    with pytest.raises(DiskFull):
        train(tmp_path, "full", training={"epochs": 2})
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_embeddings_on_a_full_disk_say_so(small_disk, tmp_path):
    """Embeddings that do not fit on the disk are DiskFull, not an error of numpy."""
    disk = small_disk(1)
    recorder = LineRecorder(tmp_path / "metrics.jsonl")
    with pytest.raises(DiskFull, match="embeddings"):
        train(disk, "head", training={"views": 64}, recorder=recorder)


class Poisoned(LineRecorder):
    """Writes NaN into the network once an epoch is recorded: the next one starts from damaged weights."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *, epoch: int, step: int) -> None:
        super().__init__(path)
        original = Classifier.training_step

        def training_step(self: Classifier, batch: Any, batch_idx: int) -> torch.Tensor:
            if (self.current_epoch, batch_idx) == (epoch, step):
                with torch.no_grad():
                    next(self.model.parameters()).fill_(float("nan"))
            return original(self, batch, batch_idx)

        monkeypatch.setattr(Classifier, "training_step", training_step)


@pytest.mark.parametrize("kind", ["full", "head"])
def test_a_loss_that_is_no_number_stops_at_once(monkeypatch, tmp_path, kind):
    """NaN in the third step of the second epoch stops there, named; the first epoch's checkpoint is kept."""
    recorder = Poisoned(tmp_path / "metrics.jsonl", monkeypatch, epoch=1, step=2)
    with pytest.raises(NonFiniteLoss, match="training loss became nan in epoch 1, step 8") as caught:
        train(tmp_path, kind, recorder=recorder)
    assert caught.value.exit_code == 5
    assert epochs_recorded(tmp_path) == [0]
    best = load_best(tmp_path / "checkpoints")
    assert best["epoch"] == 0
    assert all(torch.isfinite(tensor).all() for tensor in best["model_state_dict"].values())


def test_a_learning_rate_out_of_all_bounds_stops(tmp_path):
    """With a learning rate of 1e30 the loss becomes infinite or NaN, and training stops in the first epoch."""
    with pytest.raises(NonFiniteLoss, match=r"became (nan|inf) in epoch 0"):
        train(tmp_path, "full", training={"optimizer": "sgd", "lr": 1e30, "warmup_epochs": 0.0, "gradient_clip": 0.0})


def test_a_loss_that_is_no_number_in_val_stops(monkeypatch, tmp_path):
    """Weights that the last step of an epoch ruined are found in val, before they are saved."""
    original = Classifier.validation_step

    def validation_step(self: Classifier, batch: Any, batch_idx: int) -> None:
        if self.current_epoch == 1:
            batch = (torch.full(batch[0].shape, float("nan")), batch[1])
        original(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "validation_step", validation_step)
    with pytest.raises(NonFiniteLoss, match="validation loss became nan in epoch 1"):
        train(tmp_path, "full")
    assert load_best(tmp_path / "checkpoints")["epoch"] == 0


class SmallMemory:
    """Lets the network run out of memory with more than so many images, from one of its calls on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, largest: int, from_call: int = 0, training: bool = True):
        self.batches: list[int] = []
        forward = Network.forward

        def limited(network: Network, images: torch.Tensor) -> torch.Tensor:
            self.batches.append(len(images))
            if len(self.batches) > from_call and len(images) > largest and network.training == training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(network, images)

        monkeypatch.setattr(Network, "forward", limited)


def test_out_of_memory_halves_the_batch(monkeypatch, tmp_path, caplog):
    """Where 24 images are too many and 8 fit, training halves twice, accumulates 4, says so, and finishes."""
    SmallMemory(monkeypatch, largest=8)
    with caplog.at_level(logging.WARNING, "medvision"):
        result = train(tmp_path, "full", training={"batch_size": 24})
    assert (result.batch_size, result.n_epochs) == (6, EPOCHS)
    logged = [record.getMessage() for record in caplog.records if "memory ran out" in record.getMessage()]
    assert logged == [
        "GPU memory ran out: batch 12, accumulate 2 from here on",
        "GPU memory ran out: batch 6, accumulate 4 from here on",
    ]
    assert load_best(tmp_path / "checkpoints")["config"]["training"]["accumulate"] == 4


def test_after_three_halvings_it_gives_up(monkeypatch, tmp_path):
    """Where a batch of 6 is too much for a setting of 48, training gives up and says what to do."""
    memory = SmallMemory(monkeypatch, largest=5)
    with pytest.raises(MedvisionError, match=r"even with batches of 6\. Use a smaller model") as caught:
        train(tmp_path, "full", training={"batch_size": 48})
    assert memory.batches == [48, 24, 12, 6]
    assert not isinstance(caught.value, torch.OutOfMemoryError)


def test_a_batch_of_one_is_not_halved(monkeypatch, tmp_path):
    """Where one image is too much, training gives up at once."""
    SmallMemory(monkeypatch, largest=0)
    with pytest.raises(MedvisionError, match="even with batches of 1"):
        train(tmp_path, "full", training={"batch_size": 1})


def test_steps_before_memory_ran_out_are_not_taken_twice(monkeypatch, tmp_path):
    """If memory runs out in mid-epoch, the weights are those of a training that began with the smaller batch."""
    with monkeypatch.context() as patch:
        SmallMemory(patch, largest=4, from_call=2)
        train(tmp_path / "short", "full")
    train(tmp_path / "small", "full", training={"batch_size": 4, "accumulate": 2})
    assert hash_weights(tmp_path / "short") == hash_weights(tmp_path / "small")


def test_memory_that_runs_out_later_costs_no_epoch(monkeypatch, tmp_path):
    """If memory runs out in the third epoch, the first two are not trained again."""
    SmallMemory(monkeypatch, largest=4, from_call=2 * 7 + 2)  # an epoch is 6 batches of train and one of val
    assert train(tmp_path, "full").batch_size == 4
    assert epochs_recorded(tmp_path) == [0, 1, 2, 3]


def test_memory_that_runs_out_in_val_leaves_training_as_it_was(monkeypatch, tmp_path):
    """If memory runs out while val is scored, the next attempt trains batch norm and dropout as the first did."""
    with monkeypatch.context() as patch:
        SmallMemory(patch, largest=11, training=False)  # 12 images are val, in batches of 4 times 8
        train(tmp_path / "short", "full", training={"batch_size": 8})
    train(tmp_path / "small", "full", training={"batch_size": 2, "accumulate": 4})
    assert hash_weights(tmp_path / "short") == hash_weights(tmp_path / "small")


class SignalsAt(LineRecorder):
    """Sends a signal to this process when an epoch is recorded."""

    def __init__(self, path: Path, *, epoch: int, number: int) -> None:
        super().__init__(path)
        self._epoch, self._number = epoch, number

    def metrics(self, values: dict[str, float], step: int) -> None:
        super().metrics(values, step)
        if step == self._epoch:
            os.kill(os.getpid(), self._number)


def test_ctrl_c_is_a_keyboard_interrupt(tmp_path):
    """Ctrl-C in a training comes through as KeyboardInterrupt, not as Lightning's exit code 1."""
    recorder = SignalsAt(tmp_path / "metrics.jsonl", epoch=1, number=signal.SIGINT)
    # Where the tests run in the background, the shell has had Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, "full", recorder=recorder)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_ends_a_training_as_the_command_wants(tmp_path):
    """SIGTERM ends a training with 143, as the command's own handler says, and it is resumed to equal weights."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    train(tmp_path / "undisturbed", "full")
    before = signal.signal(signal.SIGTERM, leave)
    try:
        recorder = SignalsAt(tmp_path / "metrics.jsonl", epoch=1, number=signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            train(tmp_path / "ended", "full", recorder=recorder)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143
    train(tmp_path / "ended", "full", resume=True)
    assert hash_weights(tmp_path / "ended") == hash_weights(tmp_path / "undisturbed")


def test_best_is_written_before_last(tmp_path):
    """After every training best_model.pth is no newer than last.ckpt: a kill between them repeats the epoch."""
    train(tmp_path, "full", training={"epochs": 1})
    folder = tmp_path / "checkpoints"
    assert (folder / BEST).stat().st_mtime_ns <= (folder / LAST).stat().st_mtime_ns
