"""The journal of a run: what was recorded, on disk before anything is sent anywhere.

A run's folder holds ``events.jsonl``, to which any process and thread of the run appends, ``files/`` with artifacts as
they were when recorded, and one small bookmark a sink. A run can be delivered, or continued, from its folder alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvision.errors import DataInvalid, DiskFull, TryAgainLater
from medvision.files import is_disk_full, read_json, write_json

_LOG = logging.getLogger(__name__)

# Plots and reports are rewritten in place by those who make them, so that a link would change with them. Weights are
# larger, are replaced and never rewritten, and would cost seconds to copy.
_COPY_BELOW_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Event:
    """One line of a journal; ``end_byte`` is the length of the journal up to and with it."""

    kind: str
    at_ms: int
    content: dict[str, Any]
    end_byte: int


def outbox(state_dir: Path) -> Path:
    """Return the folder that holds a folder for every run."""
    return state_dir / "outbox"


class Journal:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events_path = folder / "events.jsonl"
        self.files_dir = folder / "files"

    @property
    def run_key(self) -> str:
        """Return the run's own key, which no sink gives and every sink is told."""
        return self.folder.name

    def append(self, kind: str, *, at_ms: int | None = None, **content: Any) -> None:
        """Append an event and return when it is on the disk; DiskFull, with the journal as it was, if it can't be."""
        moment = time.time_ns() // 1_000_000 if at_ms is None else at_ms
        line = json.dumps({"kind": kind, "at_ms": moment, **content}, default=str).encode() + b"\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.events_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            _cut_torn_line(handle)
            _write(handle, line)
            os.fsync(handle)
        except OSError as error:
            if is_disk_full(error):
                raise _disk_full(self.events_path) from error
            raise
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def new_place(self, name: str) -> Iterator[Path]:
        """Give a path for a file, or a folder, that belongs to the run; nothing is left of it if making it fails."""
        folder = self.files_dir / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder / name
        except BaseException as error:
            shutil.rmtree(folder)
            if is_disk_full(error):
                raise _disk_full(folder) from error
            raise

    def keep(self, path: Path) -> str:
        """Keep a file, or a folder of files, as it is now; return its place below the run's folder."""
        with self.new_place(path.name) as place:
            if path.is_dir():
                shutil.copytree(path, place, copy_function=_keep_file)
            else:
                _keep_file(str(path), str(place))
        return self.relative(place)

    def relative(self, place: Path) -> str:
        """Return a path below the run's folder as the journal writes it."""
        return str(place.relative_to(self.folder))

    def size_bytes(self) -> int:
        """Return the length of the journal; 0 if nothing was recorded."""
        try:
            return self.events_path.stat().st_size
        except FileNotFoundError:
            return 0

    def events(self) -> list[Event]:
        """Return all events that were recorded."""
        return Tail(self).read()

    def is_delivered(self, sink: str) -> bool:
        """Tell, without reading the events, whether the run has ended and the sink has all of it."""
        bookmark = self.bookmark(sink).read()
        return bookmark.get("last_kind") == "end" and bookmark["delivered_bytes"] >= self.size_bytes()

    def started_ms(self) -> int:
        """Return when the run was first started, in milliseconds since 1970."""
        return self.events()[0].at_ms

    def bookmark(self, sink: str) -> Bookmark:
        """Return what a sink has taken of this journal."""
        return Bookmark(self.folder / f"{sink}.json")

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the run for this process; TryAgainLater if another living process holds it.

        The system lets go when the process dies, so that a journal without owner and without end was killed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "owner.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TryAgainLater(
                    f"Run {self.run_key} belongs to a process that is still alive. Wait for it, or stop it first."
                ) from None
            yield


class Tail:
    """Reads a journal as it grows; each metric of a step, and each param, comes once: the first that was recorded.

    A training that is resumed after a kill repeats the epoch it was in, and records it again.
    """

    def __init__(self, journal: Journal) -> None:
        self._path = journal.events_path
        self._end_byte = 0
        self._seen: set[tuple[str, str, int]] = set()

    def read(self) -> list[Event]:
        """Return the whole events since the last call; a torn last line waits for its rest."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._end_byte)
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return list(itertools.chain.from_iterable(self._parse(line) for line in lines))

    def _parse(self, line: bytes) -> Iterator[Event]:
        self._end_byte += len(line) + 1
        try:
            content = json.loads(line)
            kind, at_ms = content.pop("kind"), content.pop("at_ms")
        except (ValueError, KeyError, AttributeError):
            _LOG.warning("%s: the line that ends at byte %d is damaged and left out.", self._path, self._end_byte)
            return
        if kind in ("metrics", "params"):
            content["values"] = self._unseen(kind, content["values"], content.get("step", 0))
        yield Event(kind, at_ms, content, self._end_byte)

    def _unseen(self, kind: str, values: dict[str, Any], step: int) -> dict[str, Any]:
        fresh = {name: value for name, value in values.items() if (kind, name, step) not in self._seen}
        self._seen.update((kind, name, step) for name in fresh)
        return fresh


class Bookmark:
    """How far one sink has taken a journal, and the ids that it gave, in a file that is whole or absent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        """Return what is known; empty before the first delivery."""
        try:
            return dict(read_json(self._path))
        except DataInvalid:
            return {}

    def update(self, **values: Any) -> None:
        """Add or replace values."""
        write_json(self._path, {**self.read(), **values})

    @property
    def delivered_bytes(self) -> int:
        """Return how much of the journal the sink has accepted."""
        return int(self.read().get("delivered_bytes", 0))


def _cut_torn_line(handle: int) -> None:
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)


def _write(handle: int, line: bytes) -> None:
    # A disk that fills up takes a part of the line first and fails at the next write.
    while line:
        line = line[os.write(handle, line) :]


def _keep_file(source: str, target: str) -> None:
    if Path(source).stat().st_size >= _COPY_BELOW_BYTES:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _disk_full(path: Path) -> DiskFull:
    return DiskFull(f"{path} could not be written: the disk is full. Free some space and run the same command again.")
