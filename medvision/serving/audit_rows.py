"""The audit log's table: the one writer's connection to it, and rows as a stream for whoever reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy
from sqlalchemy import URL, BigInteger, Column, Connection, Integer, MetaData, String, Table, Text, select

from medvision.errors import AuditUnavailable, DataInvalid, LedgerBroken
from medvision.serving.audit_chain import Head, Row, hash_row
from medvision.serving.audit_place import (
    describe_place,
    is_file,
    lock_file,
    lock_session,
    make_file,
    reading_engine,
    writing_engine,
)

# At 1 kB a row, a megabyte in memory.
_PAGE = 1000

_METADATA = MetaData()
_ROWS = Table(
    "medvision_audit",
    _METADATA,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("time", String(32), nullable=False),
    Column("request_id", String(128), nullable=False, index=True),
    Column("entry", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
# What is written to see whether writing works again: the chain itself has rows of predictions alone.
_PROBE = Table("medvision_audit_probe", _METADATA, Column("time", String(32), nullable=False))


class AuditWriter:
    """The one connection that writes. It holds the log against other servers, and is not for several threads at once.

    Whatever fails raises OSError or SQLAlchemyError, and is followed by ``disconnect``: a commit whose end is not known
    is looked up by the next ``connect``.
    """

    def __init__(self, url: URL) -> None:
        """Take the log and make it if there is none; TryAgainLater if another server has it."""
        self._url = url
        self._engine = writing_engine(url)
        self._connection: Connection | None = None
        self._lock = -1
        if is_file(url):
            make_file(Path(str(url.database)))
            self._lock = lock_file(url)
        self._inode = self._find_inode()

    @property
    def is_connected(self) -> bool:
        """Tell whether there is a connection."""
        return self._connection is not None

    def connect(self) -> Row | None:
        """Open the connection and return the last row, None of an empty log; LedgerBroken if it was edited."""
        self._check_place()
        self._connection = self._engine.connect()
        if not is_file(self._url):
            lock_session(self._connection, self._url)
        with self._connection.begin():
            _METADATA.create_all(self._connection)
        return self.read_row()

    def disconnect(self) -> None:
        """Drop the connection, in whatever state it is."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, OSError):
                connection.invalidate()
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, OSError):
                connection.close()

    def read_row(self, sequence: int | None = None) -> Row | None:
        """Return a row, the last one if no number is given, None if there is none; LedgerBroken if it was edited."""
        query = select(_ROWS).order_by(_ROWS.c.sequence.desc()).limit(1)
        if sequence is not None:
            query = query.where(_ROWS.c.sequence == sequence)
        assert self._connection is not None
        with self._connection.begin():
            found = self._connection.execute(query).one_or_none()
        row = Row(*found) if found else None
        if row is not None and row.hash != hash_row(row):
            raise LedgerBroken(f"Row {row.sequence} of the audit log {describe_place(self._url)} was edited. {_ADVICE}")
        return row

    def append(self, rows: Sequence[Row], time: str) -> None:
        """Write rows, all or none, and return when they are on the disk; without any, write only when that was."""
        self._check_place()
        assert self._connection is not None
        with self._connection.begin():
            if rows:
                self._connection.execute(_ROWS.insert(), [vars(row) for row in rows])
            else:
                self._connection.execute(_PROBE.delete())
                self._connection.execute(_PROBE.insert().values(time=time))

    def close(self) -> None:
        """Let go of the log."""
        self.disconnect()
        self._engine.dispose()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _check_place(self) -> None:
        # SQLite goes on writing to a file that was deleted, or exchanged, under it.
        if self._find_inode() != self._inode:
            raise FileNotFoundError(f"{self._url.database} is not the file that was opened")

    def _find_inode(self) -> int:
        return os.stat(str(self._url.database)).st_ino if is_file(self._url) else 0


def check_head(writer: AuditWriter, head: Head, place: str) -> None:
    """Raise LedgerBroken unless a log still has the row that a head tells of."""
    row = writer.read_row(head.sequence) if head.sequence else None
    if head.sequence and (row is None or row.hash != head.hash):
        raise LedgerBroken(
            f"Row {head.sequence} of the audit log {place} is missing or was replaced: it was there on "
            f"{head.time[:10]}. {_ADVICE}"
        )


def read_rows(url: URL) -> Iterator[Row]:
    """Yield all rows by their numbers, also while a server writes.

    Each page is a transaction of its own: a long one would keep SQLite from emptying its write-ahead log.
    """
    last: int | None = None
    with reading(url) as connection:
        while page := _read_page(connection, last):
            yield from page
            last = page[-1].sequence


def find_rows(url: URL, request_id: str) -> list[Row]:
    """Return the rows of a request: one for each prediction that was made for it."""
    with reading(url) as connection:
        query = select(_ROWS).where(_ROWS.c.request_id == request_id).order_by(_ROWS.c.sequence)
        return [Row(*found) for found in connection.execute(query)]


@contextlib.contextmanager
def reading(url: URL) -> Iterator[Connection]:
    """Open a log for reading.

    Raises
    ------
    DataInvalid: there is none.
    LedgerBroken: the file is damaged.
    AuditUnavailable: it can't be read for the moment.
    """
    engine, place = reading_engine(url), describe_place(url)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table(_ROWS.name):
                raise DataInvalid(f"There is no audit log in {place}. `medvision serve` makes it.")
            connection.rollback()
            yield connection
    except sqlalchemy.exc.OperationalError as error:
        raise AuditUnavailable(f"The audit log {place} can't be read: {brief(error)}.") from None
    except sqlalchemy.exc.DBAPIError as error:
        raise LedgerBroken(
            f"The audit log {place} is damaged: {brief(error)}. Keep it for whoever investigates, and restore a backup."
        ) from None
    finally:
        engine.dispose()


def brief(error: Exception) -> str:
    """Return the first line of what the database, or the system, says: without the statement and what was written."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0].rstrip(".")


def _read_page(connection: Connection, last: int | None) -> list[Row]:
    query = select(_ROWS).order_by(_ROWS.c.sequence).limit(_PAGE)
    if last is not None:
        query = query.where(_ROWS.c.sequence > last)
    with connection.begin():
        return [Row(*found) for found in connection.execute(query)]


_ADVICE = (
    "Run: medvision audit-log verify. Nothing is written behind it: keep it for whoever investigates, and start a new "
    "log: --set serving.audit_url=sqlite:///PATH"
)
