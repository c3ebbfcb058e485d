"""The audit log: what is acknowledged is on the disk, in order, and one server alone writes."""

import concurrent.futures
import json
import os
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from medvision.errors import AuditUnavailable, ConfigInvalid, LedgerBroken, TryAgainLater
from medvision.serving import audit_log
from medvision.serving.audit_log import AuditLog
from tests.unit.serving.audit_cases import check, entry, execute, fill, heads_of, rows_of, url_of


@pytest.fixture
def path(tmp_path):
    """Return where a log can be."""
    return tmp_path / "state" / "audit.db"


@pytest.fixture
def log(path):
    """Return an open log."""
    log = AuditLog.open(url_of(path))
    yield log
    log.close()


def test_a_commit_is_on_the_disk(path, log):
    """Once the future is done another connection finds the row, with all that the entry says."""
    log.commit([entry("r1", case_hash=None, prediction_set=None, is_abstention=None)]).result(10)
    (row,) = rows_of(path)
    assert (row.sequence, row.request_id, row.previous) == (1, "r1", "0" * 64)
    values = json.loads(row.entry)
    assert values["scores"] == {"glioma": 0.125, "no": 0.875} and values["thresholds"] == {"glioma": 0.3}
    assert (values["case_hash"], values["prediction_set"], values["is_abstention"]) == (None, None, None)
    assert set(values) == set(vars(entry()))


def test_it_is_written_through(path, log):
    """Every commit is flushed to the disk: write-ahead log, synchronous FULL."""
    with log._writer._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_batch_stands_or_falls_together(path, log):
    """Of a batch with an entry that can't be written none is, and what others commit meanwhile is."""
    with pytest.raises(ValueError):
        log.commit([entry("r1"), entry("r2", scores={"no": float("nan")})])
    log.commit([entry("r3"), entry("r4")]).result(10)
    assert [row.request_id for row in rows_of(path)] == ["r3", "r4"]


def test_many_threads(path, log):
    """Of what 16 threads commit at once nothing is lost, nothing stands twice, and the chain is whole."""
    with ThreadPoolExecutor(16) as threads:
        commit = lambda number: log.commit([entry(f"r{number}")]).result(30)  # noqa: E731
        list(threads.map(commit, range(800)))
    rows = rows_of(path)
    assert sorted(row.request_id for row in rows) == sorted(f"r{number}" for number in range(800))
    assert [row.sequence for row in rows] == list(range(1, 801))
    assert check(path).n_rows == 800


def test_what_waits_is_written_together(path, log, monkeypatch):
    """While a transaction is being flushed all others wait, and then share one: two transactions for 100 commits."""
    sizes, is_written, original = [], threading.Event(), log._writer.append

    def append(rows, time):
        is_written.wait(10)
        sizes.append(len(rows))
        original(rows, time)

    monkeypatch.setattr(log._writer, "append", append)
    first = log.commit([entry("r0")])
    while not first.running():
        pass
    others = [log.commit([entry(f"r{number}")]) for number in range(1, 100)]
    is_written.set()
    concurrent.futures.wait([first, *others], timeout=10)
    assert sizes == [1, 99]


def test_a_restart_goes_on(path):
    """A second server goes on where the first has ended: one chain."""
    fill(path, 3)
    fill(path, 2, first=4)
    assert check(path).n_rows == 5


def test_order_is_by_sequence(path, log, monkeypatch):
    """Rows are in the order in which they were committed, though the clock jumps back by a day."""
    clock = iter(["2026-03-02T12:00:00.000+00:00"] * 2 + ["2026-03-01T12:00:00.000+00:00"] * 9)
    monkeypatch.setattr(audit_log, "_now", lambda: next(clock))
    for number in range(3):
        log.commit([entry(f"r{number}")]).result(10)
    log.close()
    rows = rows_of(path)
    assert [row.request_id for row in rows] == ["r0", "r1", "r2"]
    assert [row.time[:10] for row in rows] == ["2026-03-02", "2026-03-01", "2026-03-01"]
    assert check(path).n_rows == 3


def test_a_second_server_is_refused(path, log):
    """A log has one writer: a second one is refused, exit code 75, and may start once the first has ended."""
    with pytest.raises(TryAgainLater, match="Another server writes to the audit log") as refused:
        AuditLog.open(url_of(path))
    assert refused.value.exit_code == 75
    log.commit([entry()]).result(10)
    log.close()
    AuditLog.open(url_of(path)).close()


def test_a_second_server_by_another_name_is_refused(path, log, tmp_path):
    """Who comes by a link to the log's folder is refused, too."""
    (tmp_path / "link").symlink_to(path.parent)
    with pytest.raises(TryAgainLater):
        AuditLog.open(url_of(tmp_path / "link" / path.name))


def test_only_the_owner_reads(path, log):
    """All files of a log are readable by their owner alone, whatever the umask is."""
    log.commit([entry()]).result(10)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert set(modes) >= {"audit.db", "audit.db-wal", "audit.db.lock", "audit.db.heads.jsonl"}
    assert set(modes.values()) == {0o600}


def test_closing_writes_what_waits(path):
    """Closing ends once all that was committed is written; what comes later fails as unavailable."""
    log = AuditLog.open(url_of(path))
    done = [log.commit([entry(f"r{number}")]) for number in range(50)]
    log.close()
    assert [each.result(0) for each in done] == [None] * 50 and len(rows_of(path)) == 50
    assert isinstance(log.commit([entry()]).exception(0), AuditUnavailable)
    assert not log.is_available
    log.close()


def test_what_was_cancelled_is_not_written(path, log, monkeypatch):
    """A commit that is cancelled before its turn is not written, and disturbs no other."""
    is_written, original = threading.Event(), log._writer.append
    monkeypatch.setattr(log._writer, "append", lambda rows, time: is_written.wait(10) and original(rows, time))
    first = log.commit([entry("r1")])
    while not first.running():
        pass
    second, third = log.commit([entry("r2")]), log.commit([entry("r3")])
    assert second.cancel()
    is_written.set()
    third.result(10)
    assert [row.request_id for row in rows_of(path)] == ["r1", "r3"]


def test_heads_are_left(path, monkeypatch):
    """Start, end and every so many rows leave a head that the chain has."""
    monkeypatch.setattr(audit_log, "_ROWS_PER_MARK", 10)
    fill(path, 25)
    heads = [json.loads(line) for line in heads_of(path).read_text().splitlines()]
    assert [(head["event"], head["sequence"]) for head in heads] == [
        ("start", 0), ("mark", 10), ("mark", 20), ("close", 25),
    ]  # fmt: skip
    assert heads[1]["hash"] == rows_of(path)[9].hash


def test_a_torn_head_is_left_out(path):
    """A head of which a kill has left a part is none, and the next server goes on behind the whole ones."""
    fill(path, 2)
    with heads_of(path).open("a") as file:
        file.write('{"event":"ma')
    assert check(path).n_heads == 2
    fill(path, 1, first=3)
    assert check(path).n_heads == 4


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///:memory:", "mysql://me:secret@host/db", "audit.db"])
def test_a_url_of_something_else(url):
    """What is neither SQLite's nor PostgreSQL's is refused, without a word of what it was: it may hold a password."""
    with pytest.raises(ConfigInvalid, match="expects sqlite:///PATH or postgresql://") as refused:
        AuditLog.open(url)
    assert "secret" not in str(refused.value)


def test_a_relative_path_is_below_the_root(tmp_path, monkeypatch):
    """A relative path starts at the project's root, wherever the server is started."""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    AuditLog.open("sqlite:///audit.db").close()
    assert (tmp_path / "audit.db").is_file()


def test_a_file_that_is_no_database(path):
    """A file of something else is AuditUnavailable, and stays as it is."""
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(AuditUnavailable, match="can't be opened"):
        AuditLog.open(url_of(path))
    assert path.read_bytes() == b"no database at all" * 100


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM medvision_audit WHERE sequence = 3",
        "DELETE FROM medvision_audit",
        "UPDATE medvision_audit SET request_id = 'r9' WHERE sequence = 3",
    ],
)
def test_nothing_is_written_behind_a_broken_end(path, harm):
    """A server does not start on a log whose end was cut off or edited, and leaves it as it is."""
    fill(path, 3)
    execute(path, harm)
    heads = heads_of(path).read_bytes()
    with pytest.raises(LedgerBroken, match="audit-log verify"):
        AuditLog.open(url_of(path))
    assert heads_of(path).read_bytes() == heads


def test_a_log_that_is_deleted_under_the_server(path, log):
    """Where the file was deleted, or exchanged, nothing is acknowledged any more: SQLite itself would not notice."""
    log.commit([entry("r1")]).result(10)
    os.rename(path, path.with_suffix(".away"))
    assert isinstance(log.commit([entry("r2")]).exception(10), AuditUnavailable)
    assert not log.is_available
    path.write_bytes(b"")
    assert not log.is_available
    os.rename(path.with_suffix(".away"), path)
    assert log.is_available
    log.commit([entry("r3")]).result(10)
    assert [row.request_id for row in rows_of(path)] == ["r1", "r3"]


def test_a_commit_whose_end_is_not_known(path, log, monkeypatch):
    """Where a write was done, and then reported as failed, the chain goes on behind it."""
    original = log._writer.append

    def append(rows, time):
        original(rows, time)
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(log._writer, "append", append)
        assert isinstance(log.commit([entry("r1")]).exception(10), AuditUnavailable)
    log.commit([entry("r2")]).result(10)
    assert [row.request_id for row in rows_of(path)] == ["r1", "r2"]
    assert check(path).n_rows == 2


def test_a_log_that_another_process_holds(path, log, monkeypatch):
    """While another process holds the database entries fail as unavailable; then the log is there again by itself."""
    monkeypatch.setattr(audit_log, "_PROBE_S", 0.2)
    log._writer.disconnect()
    log._writer._engine = _impatient(log._writer._engine)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    failed = log.commit([entry("r1")]).exception(10)
    assert isinstance(failed, AuditUnavailable) and (failed.http_status, failed.exit_code) == (503, 75)
    assert not log.is_available
    holder.execute("ROLLBACK")
    assert log.is_available
    log.commit([entry("r2")]).result(10)
    assert check(path).n_rows == 1


def _impatient(engine):
    """Return the engine with connections that wait 50 ms in place of seconds."""
    from sqlalchemy import event

    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=50"))
    return engine


@pytest.mark.parametrize(
    "changed",
    [
        {"request_id": "Doe, John"},
        {"request_id": "=cmd"},
        {"request_id": ""},
        {"request_id": "r" * 129},
        {"case_hash": "MRN 12345"},
        {"case_hash": "12345"},
        {"input_sha256": "scan_of_john_doe.png"},
    ],
)
def test_identifiers_are_refused(changed):
    """What is no hash where a hash belongs, and what is no plain id, is refused, and is not in the message."""
    with pytest.raises(ValueError, match=next(iter(changed))) as refused:
        entry(**changed)
    assert next(iter(changed.values())) not in str(refused.value) or changed == {"request_id": ""}
