"""What the tests of the audit log share: entries, logs with rows, and the ways to touch them."""

import hashlib
import sqlite3
from pathlib import Path

from medvision.serving.audit_chain import Row, check_chain, check_end, hash_row
from medvision.serving.audit_entry import AuditEntry
from medvision.serving.audit_heads import read_heads
from medvision.serving.audit_log import AuditLog
from medvision.serving.audit_place import parse_url
from medvision.serving.audit_rows import read_rows


def entry(request_id="r1", **changed):
    """Return an entry as a server makes it."""
    fields = {
        "request_id": request_id,
        "key_id": "k1",
        "endpoint": "/api/v1/predict",
        "role": "answer",
        "case_hash": "ab" * 8,
        "model": "brain-mri-resnet18",
        "version": "1.0.0",
        "package_digest": "d" * 64,
        "engine": "onnx",
        "input_sha256": hashlib.sha256(request_id.encode()).hexdigest(),
        "scores": {"glioma": 0.125, "no": 0.875},
        "prediction_set": ("no",),
        "thresholds": {"glioma": 0.3},
        "is_abstention": False,
        "is_indeterminate": False,
        "latency_ms": 12.5,
    }
    return AuditEntry(**{**fields, **changed})


def url_of(path):
    """Return the URL of a log in a file."""
    return f"sqlite:///{path}"


def fill(path, n, first=1):
    """Write so many entries into a log, in a server that starts and ends."""
    log = AuditLog.open(url_of(path))
    for number in range(first, first + n):
        log.commit([entry(f"r{number}")]).result(10)
    log.close()


def rows_of(path):
    """Return all rows of a log."""
    return list(read_rows(parse_url(url_of(path))))


def check(path, expected=None):
    """Check a log with the heads beside it, as the command does."""
    heads = read_heads(heads_of(path))
    checked = check_chain(read_rows(parse_url(url_of(path))), heads, expected)
    check_end(checked.n_rows, read_heads(heads_of(path)))
    return checked


def heads_of(path):
    """Return the file of a log's heads."""
    return Path(f"{path}.heads.jsonl")


def execute(path, *statements):
    """Do to a log what somebody with the database's own tools can do."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(*statement) if isinstance(statement, tuple) else connection.execute(statement)
    connection.close()


def replace_rows(path, rows):
    """Put other rows in the place of all."""
    insert = "INSERT INTO medvision_audit (sequence, time, request_id, entry, previous, hash) VALUES (?, ?, ?, ?, ?, ?)"
    execute(path, "DELETE FROM medvision_audit", *((insert, tuple(vars(row).values())) for row in rows))


def forge(row, last, **changed):
    """Return a changed row with the hashes that it must have behind another one."""
    values = {**vars(row), "previous": last.hash if last else "0" * 64, **changed, "hash": ""}
    return Row(**{**values, "hash": hash_row(Row(**values))})
