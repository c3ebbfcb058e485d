"""The audit log in PostgreSQL: the same promises, on a server that the test starts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from medvision.errors import AuditUnavailable, LedgerBroken, TryAgainLater
from medvision.serving.audit_log import AuditLog
from medvision.serving.audit_place import parse_url
from medvision.serving.audit_rows import find_rows, read_rows
from pipelines.audit_log import audit_log
from tests.faults.test_audit_faults import SERVER, measure
from tests.postgresql_server import running_postgresql
from tests.unit.serving.audit_cases import entry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres():
    """Start PostgreSQL."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def url(postgres, tmp_path, monkeypatch):
    """Return the URL of a database of its own, and work in a project of its own: its state folder has the heads."""
    (tmp_path / "MLproject").write_text("name: test\n")
    monkeypatch.chdir(tmp_path)
    name = f"audit_{uuid.uuid4().hex[:8]}"
    execute(postgres.uri("postgres"), f"CREATE DATABASE {name}")
    return postgres.uri(name)


def execute(url, statement):
    """Do to a database what its owner can do."""
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def fill(url, n):
    """Write so many entries, in a server that starts and ends."""
    log = AuditLog.open(url)
    for number in range(n):
        log.commit([entry(f"r{number}")]).result(10)
    log.close()


def test_the_whole_cycle(url, tmp_path):
    """Entries are committed, verified, found and exported, across two servers and while the second writes."""
    fill(url, 3)
    log = AuditLog.open(url)
    log.commit([entry("batch-1"), entry("batch-2")]).result(10)
    assert (tmp_path / ".medvision" / f"audit-{parse_url(url).database}.heads.jsonl").is_file()
    assert audit_log("verify", url=url).n_rows == 5
    assert [row["sequence"] for row in audit_log("find", request_id="batch-2", url=url).rows] == [5]
    for suffix in ("jsonl", "csv", "parquet"):
        assert audit_log("export", out=tmp_path / f"out.{suffix}", url=url).n_rows == 5
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[4])["request_id"] == "batch-2"
    log.close()
    assert audit_log("verify", url=url).n_rows == 5


COPY = "INSERT INTO medvision_audit SELECT {}, time, request_id, entry, previous, hash FROM medvision_audit LIMIT 1"


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        ("UPDATE medvision_audit SET request_id = 'r9' WHERE sequence = 3", 3),
        ("DELETE FROM medvision_audit WHERE sequence = 2", 2),
        ("DELETE FROM medvision_audit WHERE sequence > 4", 5),
        (COPY.format(7), 7),
        (COPY.format(0), 0),
    ],
)
def test_what_was_touched_is_named(url, harm, named):
    """What somebody with the database's rights has done is named by the first bad row."""
    fill(url, 6)
    execute(url, harm)
    with pytest.raises(LedgerBroken, match=f"Row {named} "):
        audit_log("verify", url=url)


def test_a_second_server_is_refused(url):
    """A database has one writer, from whichever machine; it is free once the first has ended."""
    log = AuditLog.open(url)
    with pytest.raises(TryAgainLater, match="Another server writes"):
        AuditLog.open(url)
    log.commit([entry()]).result(10)
    log.close()
    AuditLog.open(url).close()


def test_commits_are_synchronous(url):
    """Every commit waits for the database's own flush, though its default was changed."""
    execute(url, f"ALTER DATABASE {parse_url(url).database} SET synchronous_commit = off")
    log = AuditLog.open(url)
    assert log._writer._connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    log._writer._connection.rollback()
    log.close()


def test_a_database_that_goes_away(postgres, url):
    """While the database is gone entries fail with 503; once it is back the log is available, and the chain goes on."""
    log = AuditLog.open(url)
    log.commit([entry("before")]).result(10)
    postgres.stop()
    failed = log.commit([entry("while")]).exception(20)
    assert isinstance(failed, AuditUnavailable) and failed.http_status == 503
    assert not log.is_available
    postgres.start()
    assert log.is_available
    log.commit([entry("after")]).result(10)
    log.close()
    assert [row.request_id for row in read_rows(parse_url(url))] == ["before", "after"]
    assert audit_log("verify", url=url).n_rows == 2


def test_another_server_takes_over(url):
    """A server that has lost its session while another took the log over writes nothing any more."""
    log = AuditLog.open(url)
    log.commit([entry("r1")]).result(10)
    execute(url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    time.sleep(0.2)
    other = AuditLog.open(url)
    other.commit([entry("r2")]).result(10)
    assert isinstance(log.commit([entry("r3")]).exception(10), AuditUnavailable)
    assert not log.is_available
    log.close()
    other.commit([entry("r4")]).result(10)
    other.close()
    assert [row.request_id for row in read_rows(parse_url(url))] == ["r1", "r2", "r4"]


def test_a_database_that_has_lost_rows(url):
    """Where what was acknowledged is gone, as after a failover, nothing is written behind the hole."""
    log = AuditLog.open(url)
    for number in range(3):
        log.commit([entry(f"r{number}")]).result(10)
    execute(url, "DELETE FROM medvision_audit WHERE sequence = 3")
    execute(url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    for _ in range(3):
        assert isinstance(log.commit([entry("later")]).exception(10), AuditUnavailable)
    assert not log.is_available
    log.close()
    assert find_rows(parse_url(url), "later") == []


def test_a_kill_loses_no_answer(url):
    """Of five servers that are killed under load no acknowledged entry is missing."""
    answered = set()
    for number in range(5):
        command = [sys.executable, "-c", SERVER, url, f"s{number}"]
        root = Path(__file__).parents[2]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as server:
            assert server.stdout
            told = [server.stdout.readline()]
            time.sleep(0.2)
            server.send_signal(signal.SIGKILL)
            told += server.stdout.readlines()
        answered |= {line.strip() for line in told if line.endswith("\n")}
        _wait_for_session_to_end(url)
    written = {row.request_id for row in read_rows(parse_url(url))}
    print(f"5 kills: {len(answered)} acknowledged, {len(written)} written, {len(answered - written)} lost")
    assert len(answered) > 50 and answered <= written


def _wait_for_session_to_end(url):
    """Wait until PostgreSQL has noticed that a client is gone, and has let go of its lock."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return AuditLog.open(url).close()
        except TryAgainLater:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_what_a_commit_takes(url):
    """Eight threads share transactions here, too."""
    log = AuditLog.open(url)
    times = measure(log, n_threads=8, n_each=100)
    log.close()
    print(f"PostgreSQL, 8 threads: p50 {times[400]:.1f} ms, p99 {times[792]:.1f} ms")
    assert audit_log("verify", url=url).n_rows == 800
