"""The journal keeps what was recorded, once, through kills and from several processes."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from pathlib import Path

import pytest

from medvision.errors import TryAgainLater
from medvision.tracking.journal import Journal, Tail


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "run")


def _append_many(folder: Path, worker: int) -> None:
    for step in range(50):
        Journal(folder).append("metrics", values={f"loss_{worker}": 0.5}, step=step)


def test_a_torn_last_line_is_left_out_and_the_next_event_is_whole(journal: Journal) -> None:
    """A line that a kill cut short is no event, and harms none that follows."""
    journal.append("tags", values={"a": 1})
    with journal.events_path.open("ab") as file:
        file.write(b'{"kind": "tags", "at_ms": 1, "val')
    assert [event.content["values"] for event in journal.events()] == [{"a": 1}]

    journal.append("tags", values={"b": 2})

    assert [event.content["values"] for event in journal.events()] == [{"a": 1}, {"b": 2}]


def test_a_tail_waits_for_the_rest_of_a_line(journal: Journal) -> None:
    """A reader that meets half a line takes it later, whole."""
    journal.append("tags", values={"a": 1})
    line = journal.events_path.read_bytes()
    journal.events_path.write_bytes(line[:10])
    tail = Tail(journal)
    assert tail.read() == []
    journal.events_path.write_bytes(line)
    assert [event.kind for event in tail.read()] == ["tags"]


def test_the_first_value_of_a_metric_of_a_step_stays(journal: Journal) -> None:
    """An epoch that is repeated after a kill is not delivered twice, and what is new in it is."""
    journal.append("metrics", values={"loss": 0.5}, step=1)
    journal.append("metrics", values={"loss": 0.4, "accuracy": 0.9}, step=1)
    journal.append("metrics", values={"loss": 0.3}, step=2)
    recorded = [(event.content["step"], event.content["values"]) for event in journal.events()]
    assert recorded == [(1, {"loss": 0.5}), (1, {"accuracy": 0.9}), (2, {"loss": 0.3})]


def test_the_first_value_of_a_param_stays(journal: Journal) -> None:
    """A run that is continued keeps the settings that it was started with."""
    journal.append("params", values={"epochs": 5})
    journal.append("params", values={"epochs": 9, "lr": 0.1})
    assert [event.content["values"] for event in journal.events()] == [{"epochs": 5}, {"lr": 0.1}]


def test_processes_that_append_at_once_lose_nothing(journal: Journal) -> None:
    """Four processes that append at once leave every line, and every line whole."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(journal.folder, worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = {(name, event.content["step"]) for event in journal.events() for name in event.content["values"]}
    assert found == {(f"loss_{worker}", step) for worker in range(4) for step in range(50)}


def test_a_kept_file_stays_as_it_was(journal: Journal, tmp_path: Path) -> None:
    """An artifact is what it was when it was recorded, though the file is rewritten in place or deleted."""
    source = tmp_path / "plots"
    source.mkdir()
    (source / "curve.txt").write_text("first")
    place = journal.keep(source)
    (source / "curve.txt").write_text("second")
    assert (journal.folder / place / "curve.txt").read_text() == "first"


def test_a_large_file_is_kept_without_a_copy(journal: Journal, tmp_path: Path) -> None:
    """Keeping weights costs no second copy on the disk, and survives their replacement."""
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1" * 2**24)
    place = journal.folder / journal.keep(weights)
    assert place.samefile(weights)
    replacement = tmp_path / "new.bin"
    replacement.write_bytes(b"2")
    os.replace(replacement, weights)
    assert place.stat().st_size == 2**24


def test_a_file_that_is_missing_leaves_nothing(journal: Journal, tmp_path: Path) -> None:
    """An artifact that can't be kept raises, and leaves no folder behind."""
    with pytest.raises(FileNotFoundError):
        journal.keep(tmp_path / "missing.txt")
    assert list(journal.files_dir.iterdir()) == []


def test_a_run_has_one_owner(journal: Journal) -> None:
    """A run that a living process holds can't be taken by another."""
    with journal.owned(), pytest.raises(TryAgainLater, match="still alive"), journal.owned():
        pass


def test_appending_is_quick(journal: Journal) -> None:
    """An event is on the disk in less than 50 ms (median)."""
    elapsed_ms = []
    for step in range(50):
        start = time.perf_counter()
        journal.append("metrics", values={"loss": 0.5}, step=step)
        elapsed_ms.append((time.perf_counter() - start) * 1000)
    assert statistics.median(elapsed_ms) < 50
