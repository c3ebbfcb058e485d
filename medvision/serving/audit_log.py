"""The audit log: a prediction may be answered once ``commit`` says that its entry is on the disk.

One thread writes. All that waits while a transaction is being flushed goes into the next one together, so that the
cost of a flush is shared by whoever is there, and nobody waits for company (group commit).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from medvision.config import load_config
from medvision.errors import AuditUnavailable, MedvisionError
from medvision.serving.audit_chain import FIRST, Head, Row, chain
from medvision.serving.audit_entry import AuditEntry, render_entry
from medvision.serving.audit_heads import append_head, read_heads
from medvision.serving.audit_place import default_heads_path, describe_place, parse_url
from medvision.serving.audit_rows import AuditWriter, brief, check_head

_LOG = logging.getLogger(__name__)

# What a kill leaves without a head, and so could be cut off unseen.
_ROWS_PER_MARK = 1000
# Bounds a transaction, and with it how long its last member waits.
_MAX_GROUP = 1000
_PROBE_S = 1.0


@dataclass(frozen=True)
class _Work:
    """What is written together: request ids and texts of entries; none to try whether writing works."""

    entries: tuple[tuple[str, str], ...]
    done: Future[None]


class AuditLog:
    """The audit log of one server, which holds it until ``close``."""

    def __init__(self, writer: AuditWriter, last: Row | None, place: str, heads_path: Path) -> None:
        """Use ``open``."""
        self._writer = writer
        self._last = last
        self._place = place
        self._heads_path = heads_path
        self._next_mark = _count(last) + _ROWS_PER_MARK
        self._has_failed = False
        self._closing = threading.Lock()
        self._is_closed = False
        self._works: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        # A daemon: a server that forgets to close must still be able to end.
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, url: str, heads_path: Path | None = None) -> AuditLog:
        """Open a log, made if there is none: ``sqlite:///PATH`` or ``postgresql://...``.

        ``heads_path``: where heads are kept; beside the file, or in the state folder for PostgreSQL, if None.

        Raises
        ------
        ConfigInvalid: the URL is neither.
        TryAgainLater: another server writes to this log.
        AuditUnavailable: it can't be written.
        LedgerBroken: its end is not what the last server has left; nothing may be written behind that.
        """
        place = parse_url(url)
        heads_path = heads_path or default_heads_path(place, load_config().paths.state)
        with _explained(place):
            writer = AuditWriter(place)
            try:
                last = _begin(writer, describe_place(place), heads_path)
            except BaseException:
                writer.close()
                raise
        return cls(writer, last, describe_place(place), heads_path)

    def commit(self, entries: Sequence[AuditEntry]) -> Future[None]:
        """Write entries, all or none; the future is done once they are on the disk.

        It fails with AuditUnavailable if they can't be written. One that is cancelled before its turn is not written.
        Raises ValueError for an entry with a figure that is NaN or infinite, before any is written.
        """
        return self._submit(tuple((entry.request_id, render_entry(entry)) for entry in entries))

    @property
    def is_available(self) -> bool:
        """Tell whether entries can be written; after a failure a write is tried, which takes up to a second."""
        if not self._has_failed:
            return not self._is_closed
        with contextlib.suppress(AuditUnavailable, TimeoutError):
            self._submit(()).result(_PROBE_S)
        return not self._has_failed

    def close(self) -> None:
        """Write all that waits, leave a head, and let go of the log. Whatever comes later fails."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            self._works.put(None)
        self._thread.join()
        if self._writer.is_connected:
            self._leave_head("close")
        self._writer.close()

    def _submit(self, entries: tuple[tuple[str, str], ...]) -> Future[None]:
        done: Future[None] = Future()
        with self._closing:
            if self._is_closed:
                done.set_exception(self._unavailable("it is closed, since the server ends"))
            else:
                self._works.put(_Work(entries, done))
        return done

    def _run(self) -> None:
        while group := self._take_group():
            wanted = [work for work in group if work.done.set_running_or_notify_cancel()]
            reason = self._write([entry for work in wanted for entry in work.entries]) if wanted else None
            for work in wanted:
                if reason is None:
                    work.done.set_result(None)
                else:
                    work.done.set_exception(self._unavailable(reason))
            if _count(self._last) >= self._next_mark:
                self._leave_head("mark")

    def _take_group(self) -> list[_Work]:
        """Wait for work, and return it with all that waits behind it; empty at the end."""
        work, group, size = self._works.get(), [], 0
        while work is not None:
            group.append(work)
            size += len(work.entries)
            if size >= _MAX_GROUP:
                break
            try:
                work = self._works.get_nowait()
            except queue.Empty:
                break
        if work is None and group:
            self._works.put(None)
        return group

    def _write(self, entries: list[tuple[str, str]]) -> str | None:
        """Write a group; return what is in the way, None if nothing is."""
        try:
            if not self._writer.is_connected:
                self._reconnect()
            rows = chain(self._last, entries, _now())
            self._writer.append(rows, _now())
        # Also what nobody has thought of: a thread that dies leaves all requests waiting.
        except Exception as error:
            self._writer.disconnect()
            _LOG.log(
                logging.DEBUG if self._has_failed else logging.ERROR, "%s", self._unavailable(brief(error)),
                exc_info=not isinstance(error, (SQLAlchemyError, OSError, MedvisionError)),
            )  # fmt: skip
            self._has_failed = True
            return brief(error)
        if self._has_failed:
            _LOG.warning("The audit log %s is written again.", self._place)
        self._last, self._has_failed = (rows[-1] if rows else self._last), False
        return None

    def _reconnect(self) -> None:
        """Connect again, and go on behind what is there: a commit that seemed to fail may have been done."""
        before, last = self._last, self._writer.connect()
        if before is not None:
            check_head(self._writer, Head("mark", before.sequence, before.hash, before.time), self._place)
        self._last = last

    def _leave_head(self, event: Literal["mark", "close"]) -> None:
        try:
            append_head(self._heads_path, _head(event, self._last))
            self._next_mark = _count(self._last) + _ROWS_PER_MARK
        except OSError as error:
            # The rows are on the disk: what they are held against lags behind, and is tried again with the next ones.
            _LOG.warning("%s could not be written: %s", self._heads_path, error)

    def _unavailable(self, reason: str) -> AuditUnavailable:
        return AuditUnavailable(
            f"The audit log {self._place} can't be written: {reason}. No prediction is answered meanwhile. Free space "
            "on its disk, or start its database: the service then goes on by itself."
        )


def _begin(writer: AuditWriter, place: str, heads_path: Path) -> Row | None:
    """Connect, hold the log against its last head, and leave the head of this start; return the last row."""
    last, heads = writer.connect(), read_heads(heads_path)
    if heads:
        check_head(writer, heads[-1], place)
    elif last is not None:
        _LOG.warning("!! %s is new: if rows were cut off the audit log before, that does not show.", heads_path)
    append_head(heads_path, _head("start", last))
    return last


@contextlib.contextmanager
def _explained(url: URL) -> Iterator[None]:
    """Raise AuditUnavailable for what a database, or the system, says."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, MedvisionError):
            raise
        raise AuditUnavailable(
            f"The audit log {describe_place(url)} can't be opened: {brief(error)}. No prediction is answered without "
            "it. Free space on its disk, start its database, or name another: --set serving.audit_url=sqlite:///PATH"
        ) from error


def _head(event: Literal["start", "mark", "close"], last: Row | None) -> Head:
    return Head(event, _count(last), last.hash if last else FIRST, _now())


def _count(last: Row | None) -> int:
    return last.sequence if last else 0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
