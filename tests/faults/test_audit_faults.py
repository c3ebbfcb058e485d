"""The audit log when the server is killed, the disk is full, or the database is gone: nothing is answered unaudited."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path

import pytest

from medvision.errors import AuditUnavailable
from medvision.serving import audit_log
from medvision.serving.audit_heads import read_heads
from medvision.serving.audit_log import AuditLog
from tests.unit.serving.audit_cases import check, entry, rows_of, url_of

# A server with 8 threads: a request id is printed once its entry is acknowledged, as an answer would be sent.
SERVER = """
import os, sys, threading
from medvision.serving.audit_log import AuditLog
from tests.unit.serving.audit_cases import entry

log = AuditLog.open(sys.argv[1])

def answer(thread):
    for number in range(10**9):
        name = f"{sys.argv[2]}-{thread}-{number}"
        log.commit([entry(name)]).result()
        os.write(1, f"{name}\\n".encode())

threads = [threading.Thread(target=answer, args=(thread,), daemon=True) for thread in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_kill_loses_no_answer(tmp_path):
    """Of ten servers that are killed under load no acknowledged entry is missing, and the chain is whole each time.

    This is the death of a process: what the loss of power leaves is up to the disk.
    """
    path, answered, generator = tmp_path / "audit.db", set(), random.Random(0)
    for number in range(10):
        command = [sys.executable, "-c", SERVER, url_of(path), f"s{number}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
            assert server.stdout
            told = [server.stdout.readline()]
            time.sleep(generator.uniform(0.05, 0.4))
            server.send_signal(signal.SIGKILL)
            told += server.stdout.readlines()
        # Half a line is an answer that nobody has received.
        answered |= {line.strip() for line in told if line.endswith("\n")}
        check(path)
    rows = rows_of(path)
    written = [row.request_id for row in rows]
    print(f"10 kills: {len(answered)} acknowledged, {len(written)} written, {len(answered - set(written))} lost")
    assert len(answered) > 100 and answered <= set(written) and len(written) == len(set(written))


def test_a_killed_server_holds_nothing(tmp_path):
    """The next server may start at once when one was killed."""
    command = [sys.executable, "-c", SERVER, url_of(tmp_path / "audit.db"), "s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as server:
        assert server.stdout
        server.stdout.readline()
        server.kill()
    AuditLog.open(url_of(tmp_path / "audit.db")).close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount an empty disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True)


def fill_disk(folder: Path) -> Path:
    """Leave no byte free; return the file that takes the space."""
    hog = folder / "hog"
    with hog.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return hog


def test_a_full_disk_refuses(small_disk):
    """On a full disk entries fail with 503, the log says that it is not available, and what was acknowledged is there.

    Once there is space the next question finds that a write succeeds, and the chain goes on.
    """
    path = small_disk / "audit.db"
    log = AuditLog.open(url_of(path))
    answered = []
    log.commit([entry("first")]).result(10)
    hog = fill_disk(small_disk)
    failures = []
    for number in range(400):
        failed = log.commit([entry(f"r{number}-{part}") for part in range(5)]).exception(10)
        failures += [failed] if failed else []
        answered += [] if failed else [f"r{number}-{part}" for part in range(5)]
        if len(failures) == 20:
            break
    assert len(failures) == 20 and all(isinstance(each, AuditUnavailable) for each in failures)
    assert failures[0].http_status == 503 and "full" in str(failures[0])
    assert not log.is_available and not log.is_available
    hog.unlink()
    assert log.is_available
    log.commit([entry("last")]).result(10)
    log.close()
    assert [row.request_id for row in rows_of(path)] == ["first", *answered, "last"]
    assert check(path).n_rows == len(answered) + 2


def test_a_log_does_not_start_on_a_full_disk(small_disk):
    """A server whose log can't be begun does not start, and does once there is space."""
    hog = fill_disk(small_disk)
    with pytest.raises(AuditUnavailable, match="can't be opened"):
        AuditLog.open(url_of(small_disk / "audit.db"))
    hog.unlink()
    AuditLog.open(url_of(small_disk / "audit.db")).close()


def test_full_for_a_moment_while_many_wait(small_disk):
    """While a disk is full and threads commit, each entry is either acknowledged and there, or refused and not."""
    path = small_disk / "audit.db"
    log = AuditLog.open(url_of(path))
    hog = fill_disk(small_disk)
    futures: dict[str, Future[None]] = {f"r{number}": log.commit([entry(f"r{number}")]) for number in range(500)}
    wait_for(futures.values(), timeout=30)
    hog.unlink()
    futures |= {f"s{number}": log.commit([entry(f"s{number}")]) for number in range(500)}
    wait_for(futures.values(), timeout=30)
    log.close()
    acknowledged = {name for name, future in futures.items() if future.exception(0) is None}
    assert {row.request_id for row in rows_of(path)} == acknowledged
    assert {f"s{number}" for number in range(500)} <= acknowledged
    check(path)


def test_a_disk_that_can_only_be_read(small_disk):
    """A log on a disk that can only be read is verified; a server does not start on it, and says why."""
    log = AuditLog.open(url_of(small_disk / "audit.db"))
    commit_some(log, 3)
    log.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert check(small_disk / "audit.db").n_rows == 3
    with pytest.raises(AuditUnavailable, match="can't be opened"):
        AuditLog.open(url_of(small_disk / "audit.db"))


def test_heads_on_a_full_disk(small_disk, tmp_path, caplog, monkeypatch):
    """Where only the heads' disk is full entries are acknowledged, it is said, and the head is left once it can be."""
    monkeypatch.setattr(audit_log, "_ROWS_PER_MARK", 2)
    heads = small_disk / "heads.jsonl"
    log = AuditLog.open(url_of(tmp_path / "audit.db"), heads)
    small = heads.read_bytes()
    # Up to the end of the page that the file has already.
    heads.write_bytes(small * (4096 // len(small)))
    hog = fill_disk(small_disk)
    commit_some(log, 40)
    assert "could not be written" in caplog.text
    hog.unlink()
    commit_some(log, 2)
    log.close()
    assert [head.event for head in read_heads(heads)][-2:] == ["mark", "close"]


def commit_some(log: AuditLog, n: int) -> None:
    for number in range(n):
        log.commit([entry(f"r{number}")]).result(10)


def measure(log: AuditLog, n_threads: int, n_each: int) -> list[float]:
    """Return what each commit of so many threads at once took, in milliseconds."""

    def work(thread: int) -> list[float]:
        times = []
        for number in range(n_each):
            start = time.perf_counter()
            log.commit([entry(f"t{thread}-{number}")]).result(30)
            times.append(1000 * (time.perf_counter() - start))
        return times

    with ThreadPoolExecutor(n_threads) as threads:
        return sorted(each for times in threads.map(work, range(n_threads)) for each in times)


def flush_ms(path: Path, n: int) -> Callable[[int], float]:
    """Return percentiles of what a bare flush of 12 kB takes on this disk."""
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(n):
            start = time.perf_counter()
            file.write(bytes(12288))
            os.fsync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    return lambda percent: statistics.quantiles(times, n=100)[percent - 1]


def test_threads_share_a_flush(tmp_path):
    """Eight threads wait hardly longer than one bare flush each: they share it, and do not queue for eight."""
    flush = flush_ms(tmp_path / "bare", 200)
    log = AuditLog.open(url_of(tmp_path / "audit.db"))
    times = measure(log, n_threads=8, n_each=100)
    log.close()
    p50, p99 = times[len(times) // 2], times[int(0.99 * len(times))]
    print(
        f"commit of 8 threads: p50 {p50:.1f} ms, p99 {p99:.1f} ms; bare flush: p50 {flush(50):.1f}, p99 {flush(99):.1f}"
    )
    assert p50 < 4 * flush(50) + 4 and p99 < 15 + 6 * flush(99)
