"""What a training leaves on disk."""

from __future__ import annotations

import json

import pytest
import torch

from medvision.errors import CheckpointCorrupt
from medvision.training.snapshots import BEST, HISTORY, LAST, load_best


def test_best_model_holds_what_is_promised_and_no_code(train, tmp_path):
    """best_model.pth has exactly the five promised keys, and loads without unpickling objects."""
    train()
    best = torch.load(tmp_path / "checkpoints" / BEST, weights_only=True)
    assert best.keys() == {"model_state_dict", "optimizer_state_dict", "epoch", "val_acc", "config"}


def test_best_model_is_that_of_the_best_epoch(train, recorder, tmp_path):
    """Epoch and accuracy of best_model.pth and of the result are those of the first epoch with the best figure."""
    result = train(epochs=5, lr=0.02)
    accuracies = recorder.figures("val_accuracy")
    best = load_best(tmp_path / "checkpoints")
    assert (best["epoch"], best["val_acc"]) == (accuracies.index(max(accuracies)), max(accuracies))
    assert (result.best_epoch, result.best_val_accuracy) == (best["epoch"], best["val_acc"])
    assert (result.n_epochs, result.last_val_accuracy) == (5, accuracies[-1])


def test_the_monitor_chooses_the_best_epoch(train, recorder, tmp_path):
    """With val_loss as the monitor the best epoch is that of the lowest loss."""
    result = train(epochs=4, lr=0.02, monitor="val_loss")
    losses = recorder.figures("val_loss")
    assert result.best_epoch == losses.index(min(losses))


def test_the_network_ends_in_its_best_state(build, train, tmp_path):
    """After the training the network holds the weights of best_model.pth, not those of the last epoch."""
    network = build()
    train(network, epochs=4, lr=0.02)
    best = load_best(tmp_path / "checkpoints")["model_state_dict"]
    assert all(torch.equal(tensor, best[name]) for name, tensor in network.state_dict().items())


def test_settings_stand_in_the_checkpoint(train, tmp_path):
    """The config of best_model.pth says with which settings it was trained."""
    train(label_smoothing=0.05)
    assert load_best(tmp_path / "checkpoints")["config"]["training"]["label_smoothing"] == 0.05


def test_save_every_keeps_a_checkpoint_every_so_many_epochs(train, tmp_path):
    """save_every=2 keeps the second and the fourth epoch, in the form of best_model.pth."""
    train(epochs=5, save_every=2)
    kept = sorted((tmp_path / "checkpoints").glob("epoch_*.pth"))
    assert [path.name for path in kept] == ["epoch_001.pth", "epoch_003.pth"]
    assert [torch.load(path, weights_only=True)["epoch"] for path in kept] == [1, 3]


def test_the_history_has_every_epoch(train, recorder, tmp_path):
    """training_history.json has the figures of each epoch, the ones that were recorded."""
    train(epochs=3)
    history = json.loads((tmp_path / "checkpoints" / HISTORY).read_text())
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert [entry["val_loss"] for entry in history] == recorder.figures("val_loss")


def test_a_new_training_forgets_the_former_one(train, tmp_path):
    """Without resume, last and numbered checkpoints of an earlier training are gone."""
    train(epochs=3, save_every=1)
    result = train(epochs=1)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert (result.n_epochs, names) == (1, {BEST, LAST, HISTORY})


def test_what_a_kill_left_half_written_is_removed(train, tmp_path):
    """A temporary file that a killed training left beside its checkpoints is gone after the next start."""
    leftover = tmp_path / "checkpoints" / f".{LAST}.abcd.tmp"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    train(epochs=1, resume=True)
    assert not leftover.exists()


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_last_checkpoint_is_refused(train, tmp_path, content):
    """Resuming from a damaged last.ckpt is an error that names the file and what to do."""
    train(epochs=1)
    (tmp_path / "checkpoints" / LAST).write_bytes(content)
    with pytest.raises(CheckpointCorrupt, match=r"last\.ckpt is damaged .* without --resume"):
        train(epochs=1, resume=True)


@pytest.mark.parametrize(("content", "message"), [(None, "is missing"), (b"", "is damaged"), (b"text", "is damaged")])
def test_a_damaged_best_model_is_refused(tmp_path, content, message):
    """A missing or damaged best_model.pth is an error that says so."""
    if content is not None:
        (tmp_path / BEST).write_bytes(content)
    with pytest.raises(CheckpointCorrupt, match=message):
        load_best(tmp_path)
