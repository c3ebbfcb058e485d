"""TensorBoard shows what was recorded, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medvision.tracking.delivery import Delivery
from medvision.tracking.journal import Journal
from medvision.tracking.tensorboard_sink import TensorboardSink, run_folder, write_graph


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "0123456789abcdef")
    journal.append("start", experiment="brain", run_name="train-timm/resnet18")
    return journal


def _deliver(journal: Journal, runs_dir: Path) -> EventAccumulator:
    sink = TensorboardSink(journal, runs_dir)
    Delivery(journal, sink).deliver()
    sink.close()
    return EventAccumulator(str(run_folder(journal, runs_dir))).Reload()


def test_metrics_become_curves(journal: Journal, tmp_path: Path) -> None:
    """Each figure of each step stands in the curve of its name, also after the run was continued."""
    journal.append("metrics", values={"val_loss": 0.5}, step=0)
    _deliver(journal, tmp_path / "runs")
    journal.append("metrics", values={"val_loss": 0.25}, step=1)
    curves = _deliver(journal, tmp_path / "runs")
    assert [(point.step, point.value) for point in curves.Scalars("val_loss")] == [(0, 0.5), (1, 0.25)]


def test_a_curve_runs_forward_however_often_it_was_continued(journal: Journal, tmp_path: Path) -> None:
    """TensorBoard reads files in the order of their names: a dozen of one second keep the order of their steps."""
    for step in range(12):
        journal.append("metrics", values={"val_loss": 1.0}, step=step)
        curves = _deliver(journal, tmp_path / "runs")
    assert [point.step for point in curves.Scalars("val_loss")] == list(range(12))


def test_figures_become_images(journal: Journal, tmp_path: Path) -> None:
    """A PNG among the artifacts is shown as it is; other artifacts are left out."""
    from PIL import Image

    Image.new("RGB", (4, 3)).save(tmp_path / "confusion.png")
    (tmp_path / "report.txt").write_text("text")
    for name in ("confusion.png", "report.txt"):
        journal.append("artifact", file=journal.keep(tmp_path / name), folder="plots")
    shown = _deliver(journal, tmp_path / "runs")
    assert shown.Tags()["images"] == ["plots/confusion"]
    assert shown.Images("plots/confusion")[0].encoded_image_string == (tmp_path / "confusion.png").read_bytes()


def test_the_folder_is_named_for_people(journal: Journal, tmp_path: Path) -> None:
    """Runs stand under their experiment, by name and the start of their key."""
    assert run_folder(journal, tmp_path) == tmp_path / "brain" / "train-timm-resnet18-01234567"


def test_the_graph_of_a_network_is_written(tmp_path: Path) -> None:
    """The graph of a network can be looked at beside its curves."""
    torch = pytest.importorskip("torch")
    write_graph(tmp_path, torch.nn.Linear(3, 2), torch.zeros(1, 3))
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["graph"]
