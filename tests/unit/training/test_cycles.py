"""Cycles of the learning rate: each ends in weights that are kept, and together they are an ensemble."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medvision.config import load_config
from medvision.data.phantom import make_phantom
from medvision.errors import CheckpointCorrupt, ConfigInvalid
from medvision.models.package import load_package
from medvision.records import Silence
from medvision.training.classifier import cycle_ends, cyclic_cosine, warmup_cosine
from medvision.training.snapshots import BEST, LAST, load_state
from pipelines.dataset import prepare_dataset
from pipelines.train import run_train

CYCLES = {"epochs": 6, "cycles": 3, "warmup_epochs": 1.0, "lr": 0.01}
# The file after which a training is killed, and which time: at the end of a cycle, between two, and at the very end.
MOMENTS = (
    ("full", "cycle_1.pth", 1),
    ("full", LAST, 2),
    ("full", "cycle_3.pth", 1),
    ("head", "cycle_1.pth", 1),
    ("head", LAST, 2),
)
STRATEGIES = pytest.mark.parametrize("strategy", ["full", "head"])


class KeyedSilence(Silence):
    """What a step asks of a run, and nothing that is kept."""

    run_key = "0" * 32

    def dataset(self, *arguments: Any, **options: Any) -> None: ...

    def model(self, *arguments: Any, **options: Any) -> None: ...


def kill_after(name: str, times: int) -> None:
    """Kill this process right after a file of this name was written for the n-th time."""
    replace, written = os.replace, [0]

    def dying(source: Any, target: Any) -> None:
        replace(source, target)
        written[0] += Path(target).name == name
        if written[0] == times:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying


def train_in_forks() -> None:
    """Train as the lines of standard input tell, each in a fork of its own; print how each of them ended."""
    import albumentations  # noqa: F401  # once, not in each fork
    from test_training_kills import train

    torch.set_num_threads(1)
    for line in sys.stdin:
        project, strategy, resume, moment = json.loads(line)
        if (child := os.fork()) == 0:
            code = 1
            try:
                if moment:
                    kill_after(*moment)
                train(Path(project), strategy, resume=resume, training=CYCLES)
                code = 0
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def states_of(folder: Path, n_cycles: int) -> list[dict[str, torch.Tensor]]:
    return [load_state(folder / f"cycle_{number}.pth")["model_state_dict"] for number in range(1, n_cycles + 1)]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def equal_states(one: Any, other: Any) -> bool:
    """Tell whether two checkpoints hold the same, tensors to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal_states(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal_states, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize(
    ("epochs", "cycles", "ends"), [(6, 3, (2, 4, 6)), (7, 3, (3, 5, 7)), (5, 5, (1, 2, 3, 4, 5)), (9, 1, (9,))]
)
def test_cycles_end_with_whole_epochs(epochs, cycles, ends):
    """The epochs are parted as evenly as can be, the first cycle never shorter than another."""
    assert cycle_ends(epochs, cycles) == ends


@pytest.mark.parametrize(("total", "cycles"), [(60, 3), (60, 5), (12, 4)])
def test_without_a_warm_up_the_factor_is_that_of_the_paper(total, cycles):
    """Each step has the factor of Huang et al., eq. 2: (cos(pi mod(t - 1, T/M) / (T/M)) + 1) / 2, t from 1."""
    ends = [total * number // cycles for number in range(1, cycles + 1)]
    length = math.ceil(total / cycles)
    expected = [(math.cos(math.pi * ((t - 1) % length) / length) + 1) / 2 for t in range(1, total + 1)]
    np.testing.assert_allclose([cyclic_cosine(step, 0, ends) for step in range(total)], expected, rtol=0, atol=1e-15)


def test_a_cycle_starts_at_the_top_and_ends_near_zero():
    """Right after the warm-up and at the start of each further cycle the factor is 1; at the last, least."""
    ends, warmup = [30, 50, 70], 10
    assert [cyclic_cosine(step, warmup, ends) for step in (10, 30, 50)] == [1, 1, 1]
    assert cyclic_cosine(0, warmup, ends) == pytest.approx(1 / 11)
    last = [cyclic_cosine(end - 1, warmup, ends) for end in ends]
    assert last == pytest.approx([(1 + math.cos(math.pi * 19 / 20)) / 2] * 3)
    assert last == [min(cyclic_cosine(step, 0, [20]) for step in range(20))] * 3


def test_the_factor_stays_zero_past_the_last_cycle():
    """A step more than was planned starts no cycle of its own."""
    assert cyclic_cosine(75, 10, [30, 50, 70]) == pytest.approx(0)


def test_one_cycle_is_the_schedule_without_cycles():
    """With one cycle each factor is, to the last bit, that of warm-up and one cosine."""
    found = [cyclic_cosine(step, 7, [100]) for step in range(105)]
    assert found == [warmup_cosine(step, 7, 100) for step in range(105)]


def test_the_learning_rate_follows_the_cycles(train, recorder):
    """The mean learning rate of each epoch is that of the cycles, warmed up in the first only."""
    train(epochs=5, cycles=2, warmup_epochs=1.0, lr=1e-2)  # 3 steps an epoch; the first cycle has 3 epochs
    factors = [cyclic_cosine(step, 3, [9, 15]) for step in range(15)]
    np.testing.assert_allclose(recorder.figures("lr"), 1e-2 * np.array(factors).reshape(5, 3).mean(axis=1), rtol=1e-6)


def test_accumulated_batches_leave_the_cycles_where_they_are(train, recorder):
    """Cycles end with their epochs where several batches make a step, the last of fewer batches than the others."""
    train(epochs=4, cycles=2, lr=1e-2, accumulate=2)  # 3 batches an epoch: 2 steps
    factors = [cyclic_cosine(step, 0, [4, 8]) for step in range(8)]
    np.testing.assert_allclose(recorder.figures("lr"), 1e-2 * np.array(factors).reshape(4, 2).mean(axis=1), rtol=1e-6)


@STRATEGIES
def test_the_weights_of_each_end_are_kept(train, tmp_path, strategy):
    """Each cycle leaves the whole network as it was after its last epoch: what save_every keeps of that epoch."""
    result = train(epochs=5, cycles=2, save_every=1, lr=0.02, strategy=strategy)
    folder = tmp_path / "checkpoints"
    assert result.cycle_paths == (folder / "cycle_1.pth", folder / "cycle_2.pth")
    for path, epoch in zip(result.cycle_paths, (2, 4), strict=True):
        assert equal_states(load_state(path), load_state(folder / f"epoch_{epoch:03d}.pth"))
    first, second = states_of(folder, 2)
    assert not equal(first, second)


def test_kept_weights_hold_no_code(train):
    """A kept cycle has the five keys of best_model.pth, and loads without unpickling objects."""
    for path in train(epochs=2, cycles=2).cycle_paths:
        state = torch.load(path, weights_only=True)
        assert state.keys() == {"model_state_dict", "optimizer_state_dict", "epoch", "val_acc", "config"}


def test_the_cycle_of_each_epoch_is_recorded(train, recorder):
    """The figures of an epoch say in which cycle it was, counted from 1."""
    train(epochs=5, cycles=2)
    assert recorder.figures("cycle") == [1, 1, 1, 2, 2]


def test_one_cycle_leaves_no_file_and_no_figure(train, recorder, tmp_path):
    """A training of one cycle keeps, returns and records nothing of cycles."""
    result = train(epochs=2, cycles=1)
    assert result.cycle_paths == ()
    assert list((tmp_path / "checkpoints").glob("cycle_*")) == []
    assert all("cycle" not in figures for _, figures in recorder.epochs)


def test_patience_does_not_cut_cycles(train):
    """With several cycles all epochs are run, where one cycle would have stopped early."""
    recipe = {"epochs": 6, "patience": 1, "min_delta": 1.0}
    assert train(**recipe).n_epochs == 2
    assert train(**recipe, cycles=2).n_epochs == 6


def test_a_new_training_forgets_the_cycles_of_the_former(train, tmp_path):
    """Without resume, no cycle of an earlier training is left."""
    train(epochs=3, cycles=3)
    train(epochs=2, cycles=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("cycle_*")) == ["cycle_1.pth", "cycle_2.pth"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Train with each strategy, whole, and killed at each moment and resumed; return the folder of all of them."""
    folder = tmp_path_factory.mktemp("killed")
    orders = [(str(folder / strategy), strategy, False, None) for strategy in ("full", "head")]
    codes = [0, 0]
    for strategy, *moment in MOMENTS:
        project = str(folder / f"{strategy}-{moment}")
        orders += [(project, strategy, False, moment), (project, strategy, True, None)]
        codes += [-signal.SIGKILL, 0]
    here = Path(__file__)
    ended = subprocess.run(
        [sys.executable, "-c", f"from {here.stem} import train_in_forks; train_in_forks()"],
        cwd=here.parent,
        env={**os.environ, "PYTHONPATH": str(here.parents[2] / "faults")},
        input="\n".join(map(json.dumps, orders)),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    # The forks share the screen with what started them: their warnings and tips come before a code.
    found = [int(line) for line in ended.stdout.splitlines() if line.lstrip("-").isdigit()]
    assert found == codes, ended.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "file", "times"), MOMENTS)
def test_a_killed_and_resumed_training_ends_with_the_same_cycles(killed, strategy, file, times):
    """Killed at the end of a cycle, or between two, and resumed: every cycle, best and last are what they would be."""
    whole, resumed = killed / strategy / "checkpoints", killed / f"{strategy}-{[file, times]}" / "checkpoints"
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in resumed.iterdir())
    for name in ("cycle_1.pth", "cycle_2.pth", "cycle_3.pth", BEST):
        one, other = load_state(whole / name), load_state(resumed / name)
        assert equal_states({**one, "config": None}, {**other, "config": None})
    one, other = (torch.load(folder / LAST, weights_only=True) for folder in (whole, resumed))
    assert all(equal_states(one[name], other[name]) for name in ("state_dict", "optimizer_states", "lr_schedulers"))


@pytest.mark.parametrize("settings", [{"epochs": 2, "cycles": 3}, {"cycles": 51}])
def test_more_cycles_than_epochs_are_refused(settings):
    """Where a cycle would have no epoch, the error names both settings and says what to do."""
    overrides = {f"training.{name}": value for name, value in settings.items()}
    epochs = settings.get("epochs", 50)
    message = rf"^training\.cycles: .*training\.epochs is {epochs}: use as few cycles, or raise it; found"
    with pytest.raises(ConfigInvalid, match=message):
        load_config(overrides=overrides)


def test_as_many_cycles_as_epochs_are_trained(train):
    """A cycle of one epoch is a cycle."""
    assert len(train(epochs=3, cycles=3).cycle_paths) == 3


@pytest.fixture(scope="module", params=["full", "head"])
def trained(request, tmp_path_factory):
    """Run the train step with three cycles of two epochs; return its folder, what it returned and the package."""
    folder = tmp_path_factory.mktemp("trained")
    make_phantom(folder / "phantom", patients_per_class=12, image_size=64)
    settings = {
        "dataset.path": folder / "phantom",
        "dataset.patient_pattern": r"(phantom\d+)",
        "transform.image_size": 32,
        "training": {"model": "simple_cnn", "strategy": request.param, "epochs": 6, "cycles": 3, "batch_size": 8},
        "performance": {"accelerator": "cpu", "workers": 1},
        "tracking.tensorboard": False,
        "paths": {name: folder / name for name in ("state", "checkpoints", "results", "tensorboard")},
    }
    config = load_config(overrides=settings)
    returned = run_train(config, KeyedSilence(), prepare_dataset(config))
    outputs = folder / "checkpoints" / "simple_cnn_outputs"
    return outputs, returned, load_package(outputs / "package")


def test_each_cycle_is_a_member(trained):
    """Three cycles make one package of three members, a soft vote whose weights sum to 1."""
    _, returned, (info, networks) = trained
    assert info == returned
    assert len(info.members) == len(networks) == 3
    assert info.combination.rule == "soft"
    assert sum(info.combination.weights) == pytest.approx(1)
    assert all(weight >= 0 for weight in info.combination.weights)


def test_each_member_has_the_weights_of_its_cycle(trained):
    """The weights of a member, its epoch and its val accuracy are those that the end of its cycle left."""
    outputs, _, (info, networks) = trained
    for number, (member, network) in enumerate(zip(info.members, networks, strict=True), start=1):
        state = load_state(outputs / f"cycle_{number}.pth")
        assert equal(network.state_dict(), state["model_state_dict"])
        assert (member.best_epoch, member.best_val_accuracy) == (2 * number - 1, state["val_acc"])


def test_a_package_of_cycles_is_whole(trained):
    """What any package has fitted on val, a package of cycles has: a temperature and prediction sets."""
    _, _, (info, _) = trained
    assert info.combination.temperature != 1
    assert info.conformal is not None


def test_a_missing_cycle_is_an_error(tmp_path):
    """A file of a cycle that is gone is named."""
    with pytest.raises(CheckpointCorrupt, match=r"cycle_2\.pth is missing"):
        load_state(tmp_path / "cycle_2.pth")
