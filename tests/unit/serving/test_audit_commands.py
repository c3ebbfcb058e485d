"""`medvision audit-log`: verify, export and find, with the exit codes that a script can rely on."""

import csv
import json
import os
import subprocess
import sys
import tracemalloc

import pyarrow.parquet as pq
import pytest

from medvision.errors import ConfigInvalid, DataInvalid, LedgerBroken
from medvision.files import canonical_json
from medvision.serving.audit_chain import Row, hash_row
from medvision.serving.audit_log import AuditLog
from pipelines.audit_log import audit_log
from tests.unit.serving.audit_cases import entry, execute, fill, heads_of, rows_of, url_of


@pytest.fixture
def path(tmp_path):
    """Return the project's own log, with three rows: of a request with two predictions, and of one without a set."""
    path = tmp_path / ".medvision" / "audit.db"
    log = AuditLog.open(url_of(path))
    log.commit([entry("r1"), entry("r1", role="shadow", version="1.1.0")]).result(10)
    log.commit([entry("r2", prediction_set=None, is_abstention=None, case_hash=None)]).result(10)
    log.close()
    return path


def command(*arguments):
    """Run a command in a process of its own."""
    run = [sys.executable, "-c", "from medvision.cli import main; main()", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_verify(path):
    """A whole log is exit code 0 and one line, with the number of rows and the head to keep."""
    outcome = command("audit-log", "verify")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout == (f"3 rows, each as it was written, held against 2 heads. Head: {rows_of(path)[-1].hash}\n")


def test_verify_a_broken_log(path):
    """A log that was touched is exit code 5 and one message that names the row, without a stack trace."""
    execute(path, "UPDATE medvision_audit SET request_id = 'r9' WHERE sequence = 2")
    outcome = command("audit-log", "verify")
    assert outcome.returncode == 5 and outcome.stdout == ""
    assert outcome.stderr.startswith("medvision: Row 2 of the audit log was edited") and outcome.stderr.count("\n") == 1


def test_a_module_is_the_same_command(path):
    """`python -m pipelines.audit_log` is `medvision audit-log`."""
    run = [sys.executable, "-m", "pipelines.audit_log", "verify", "--json"]
    outcome = subprocess.run(run, capture_output=True, text=True)
    assert (outcome.returncode, json.loads(outcome.stdout)["n_rows"]) == (0, 3)


def test_an_expected_head(path):
    """A hash that somebody has kept must be there; what is no hash is refused as such."""
    assert audit_log("verify", head=rows_of(path)[1].hash).n_rows == 3
    with pytest.raises(LedgerBroken, match="expected hash"):
        audit_log("verify", head="0" * 63 + "1")
    with pytest.raises(ConfigInvalid, match="--head expects a hash"):
        audit_log("verify", head="latest")


def test_lost_heads_are_said(path, tmp_path):
    """Without heads a truncation would not show: the log counts as broken, unless they, or a hash, are given."""
    away = heads_of(path).rename(tmp_path / "away.jsonl")
    with pytest.raises(LedgerBroken, match=r"heads\.jsonl is missing"):
        audit_log("verify")
    assert audit_log("verify", heads=away).n_heads == 2
    assert audit_log("verify", head=rows_of(path)[-1].hash).n_heads == 0


def test_verify_while_a_server_writes(path):
    """All three commands work while a server has the log open, and change nothing."""
    log = AuditLog.open(url_of(path))
    log.commit([entry("r3")]).result(10)
    assert audit_log("verify").n_rows == 4
    assert len(audit_log("find", request_id="r3").rows) == 1
    assert audit_log("export", out=path.parent / "out.jsonl").n_rows == 4
    log.commit([entry("r4")]).result(10)
    log.close()


def test_no_log(tmp_path):
    """Where there is no log the message says so and how there comes to be one, and none is made."""
    for arguments in ({"action": "verify"}, {"action": "find", "request_id": "r1"}):
        with pytest.raises(DataInvalid, match="There is no audit log"):
            audit_log(**arguments)
    assert not (tmp_path / ".medvision" / "audit.db").exists()


def test_a_database_of_something_else(tmp_path):
    """A database without the log's table is told from a log."""
    execute(tmp_path / "other.db", "CREATE TABLE t (x)")
    with pytest.raises(DataInvalid, match="There is no audit log in"):
        audit_log("verify", url=url_of(tmp_path / "other.db"))


@pytest.mark.parametrize("arguments", [("check",), ("export",), ("find",), ("",)])
def test_usage(arguments):
    """An unknown action, or one without what it needs, is refused with what was expected."""
    with pytest.raises(ConfigInvalid, match="expects verify, export --out FILE or find --request-id ID"):
        audit_log(*arguments)


def test_find(path, capsys):
    """All rows of a request are printed as JSON, those of a shadow too."""
    found = audit_log("find", request_id="r1")
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["role"], row["version"]) for row in printed] == [("answer", "1.0.0"), ("shadow", "1.1.0")]
    assert [row["sequence"] for row in found.rows] == [1, 2]
    with pytest.raises(ConfigInvalid, match="no row of a request 'r7'"):
        audit_log("find", request_id="r7")


def test_an_edited_row_is_not_shown_as_found(path):
    """A row that was edited is named, and not shown as if it was what was answered."""
    execute(path, "UPDATE medvision_audit SET entry = replace(entry, '0.875', '0.1') WHERE sequence = 3")
    with pytest.raises(LedgerBroken, match=r"Row 3 .*edited"):
        audit_log("find", request_id="r2")


def test_export_json_lines(path, tmp_path):
    """A line of JSON has all of a row, from which its hash can be computed again."""
    audit_log("export", out=tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for line, row in zip(lines, rows_of(path), strict=True):
        own = {name: line.pop(name) for name in ("sequence", "time", "previous", "hash")}
        again = Row(**{**own, "request_id": line["request_id"], "entry": canonical_json(line)})
        assert hash_row(again) == row.hash


def test_export_csv(path, tmp_path):
    """CSV has a row a prediction; what holds several values is JSON, what there is none of is empty."""
    audit_log("export", out=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["request_id"] for row in rows] == ["r1", "r1", "r2"]
    assert json.loads(rows[0]["scores"]) == {"glioma": 0.125, "no": 0.875}
    assert [row["prediction_set"] for row in rows] == ['["no"]', '["no"]', ""]


def test_export_parquet(path, tmp_path):
    """Parquet has typed columns: figures are numbers, sets are lists, what there is none of is null."""
    audit_log("export", out=tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    assert dict(rows[0]["scores"]) == {"glioma": 0.125, "no": 0.875} and rows[0]["latency_ms"] == 12.5
    assert (rows[0]["prediction_set"], rows[2]["prediction_set"], rows[2]["is_abstention"]) == (["no"], None, None)


def test_export_refuses_other_files(path, tmp_path):
    """A file of another kind is refused before anything is written."""
    with pytest.raises(ConfigInvalid, match=r"\.jsonl, \.csv, \.parquet"):
        audit_log("export", out=tmp_path / "out.xlsx")
    assert not (tmp_path / "out.xlsx").exists()


def test_a_failed_export_leaves_nothing(path, tmp_path):
    """An export that meets a row that can't be read leaves the file that was there as it was."""
    execute(path, "UPDATE medvision_audit SET entry = 'no JSON' WHERE sequence = 3")
    (tmp_path / "out.csv").write_text("before")
    with pytest.raises(LedgerBroken, match="Row 3 "):
        audit_log("export", out=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "before"
    assert not list(tmp_path.glob(".out*"))


def test_memory_stays_flat(path, tmp_path):
    """Verify and export hold a page of rows in memory, whatever the length of the log is."""
    peaks = []
    for n in (3000, 6000):
        log = AuditLog.open(url_of(path))
        last = None
        for number in range(n):
            last = log.commit([entry(f"r{n}-{number}")])
        last.result(60)
        log.close()
        tracemalloc.start()
        audit_log("verify")
        audit_log("export", out=tmp_path / "out.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_password_is_refused_in_settings(path):
    """Settings are recorded with every run: a URL with a password in them is refused, and not repeated."""
    for url in ("postgresql://me:hush@host/db", "postgresql://me@host/db?password=hush"):
        with pytest.raises(ConfigInvalid, match="must not hold a password") as refused:
            audit_log("verify", set_=[f"serving.audit_url={url}"])
        assert "hush" not in str(refused.value)


def test_the_setting_names_the_log(tmp_path):
    """serving.audit_url names the log that the commands read."""
    fill(tmp_path / "elsewhere.db", 2)
    assert audit_log("verify", set_=[f"serving.audit_url={url_of(tmp_path / 'elsewhere.db')}"]).n_rows == 2
