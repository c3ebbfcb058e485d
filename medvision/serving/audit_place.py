"""Where the audit log is: a SQLite file or a database of PostgreSQL, how it is opened, and who may write to it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.pool import NullPool

from medvision.errors import ConfigInvalid, DataInvalid, TryAgainLater
from medvision.files import project_root

# How long another process, a backup say, may hold the database; a request waits no longer for its audit.
_WAIT_S = 5
# Any number that no other program takes: "medvisi" in ASCII.
_ADVISORY_LOCK = 0x6D656476697369


def parse_url(text: str) -> URL:
    """Return the URL of a log; a path of SQLite that is relative starts at the project's root.

    Raises ConfigInvalid unless it is a file of SQLite or a database of PostgreSQL.
    """
    try:
        url = sqlalchemy.make_url(text)
    except sqlalchemy.exc.ArgumentError:
        raise _not_a_url() from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database and url.database != ":memory:":
        return url.set(database=str((project_root() / url.database).resolve()))
    if kind == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise _not_a_url()


def is_file(url: URL) -> bool:
    """Tell whether a log is a file of SQLite."""
    return url.get_backend_name() == "sqlite"


def describe_place(url: URL) -> str:
    """Return a log's place for people, without a password."""
    return str(url.database) if is_file(url) else url.render_as_string(hide_password=True)


def default_heads_path(url: URL, state: Path) -> Path:
    """Return the file of heads: beside the file of a log, in the state folder for a database."""
    if is_file(url):
        return Path(f"{url.database}.heads.jsonl")
    return state / f"audit-{url.database}.heads.jsonl"


def writing_engine(url: URL) -> Engine:
    """Return an engine whose every commit is on the disk before it returns."""
    if not is_file(url):
        return _postgresql(url, f"-c synchronous_commit=on -c statement_timeout={_WAIT_S}s")
    engine = _sqlite(url, "rw")

    @event.listens_for(engine, "connect")
    def _flush_each_commit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def reading_engine(url: URL) -> Engine:
    """Return an engine that changes nothing, and works while a server writes; DataInvalid if there is no file."""
    if not is_file(url):
        return _postgresql(url, "-c default_transaction_read_only=on")
    if not Path(str(url.database)).is_file():
        raise DataInvalid(
            f"There is no audit log at {url.database}. `medvision serve` makes it; name another with --url."
        )
    return _sqlite(url, "ro&immutable=1" if _is_frozen(url) else "ro")


def make_file(path: Path) -> None:
    """Make the file of a log unless it is there, readable by its owner alone; SQLite gives its others the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def lock_file(url: URL) -> int:
    """Hold the log's file for this process until the handle that is returned is closed, or the process dies.

    Raises TryAgainLater if another server holds it.
    """
    handle = os.open(f"{url.database}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise _held(url) from None
    return handle


def lock_session(connection: Connection, url: URL) -> None:
    """Hold a log in PostgreSQL for as long as this connection lasts; TryAgainLater if another server holds it."""
    is_held = connection.scalar(sqlalchemy.select(sqlalchemy.func.pg_try_advisory_lock(_ADVISORY_LOCK)))
    connection.commit()
    if not is_held:
        raise _held(url)


def _is_frozen(url: URL) -> bool:
    """Tell whether a file lies where SQLite can't make the files beside it that it reads with, and needs none."""
    return not os.access(Path(str(url.database)).parent, os.W_OK) and not Path(f"{url.database}-wal").exists()


def _sqlite(url: URL, mode: str) -> Engine:
    # A file that was deleted is missed, and not made anew, empty.
    name = f"file:{quote(str(url.database))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(name, uri=True, timeout=_WAIT_S, check_same_thread=False)
        # A damaged row must be read to be named.
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        return connection

    return sqlalchemy.create_engine(url, creator=connect, poolclass=NullPool, hide_parameters=True)


def _postgresql(url: URL, options: str) -> Engine:
    arguments = {"connect_timeout": _WAIT_S, "tcp_user_timeout": 1000 * _WAIT_S, "options": options}
    try:
        return sqlalchemy.create_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
    except ModuleNotFoundError:
        raise ConfigInvalid("An audit log in PostgreSQL needs psycopg: pip install 'medvision[postgresql]'") from None


def _held(url: URL) -> TryAgainLater:
    return TryAgainLater(
        f"Another server writes to the audit log {describe_place(url)}, and one chain has one writer. Stop that "
        "server first, or give this one a log of its own: --set serving.audit_url=sqlite:///PATH"
    )


def _not_a_url() -> ConfigInvalid:
    # What was found is not told: it may hold a password.
    return ConfigInvalid(
        "serving.audit_url expects sqlite:///PATH or postgresql://USER@HOST/DATABASE; found something else."
    )
