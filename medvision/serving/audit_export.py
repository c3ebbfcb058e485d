"""The audit log as a table for people and for other programs: JSON lines, CSV or Parquet, with a row a prediction."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from medvision.errors import ConfigInvalid, LedgerBroken
from medvision.files import atomic_write, canonical_json
from medvision.serving.audit_chain import Row
from medvision.serving.audit_entry import AuditEntry

COLUMNS = ("sequence", "time", *(field.name for field in fields(AuditEntry)), "previous", "hash")
SUFFIXES = (".jsonl", ".csv", ".parquet")

_NESTED = ("scores", "prediction_set", "thresholds")
# Rows of Parquet that are held in memory, and lie together in the file.
_GROUP = 5000


def check_suffix(path: Path) -> None:
    """Raise ConfigInvalid unless a file's name says in which of the formats it is to be."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigInvalid(f"--out expects a file that ends in {', '.join(SUFFIXES)}; found {str(path)!r}.")


def export(rows: Iterable[Row], path: Path) -> int:
    """Write rows to a file, whole or not at all, in the format of its suffix; return how many.

    In CSV, what holds several values is JSON. Raises LedgerBroken for a row that can't be read.
    """
    check_suffix(path)
    write = {".jsonl": _write_json_lines, ".csv": _write_csv, ".parquet": _write_parquet}[path.suffix.lower()]
    counted = _Counted(flatten(row) for row in rows)
    atomic_write(path, lambda file: write(counted, file))
    return counted.n


def flatten(row: Row) -> dict[str, Any]:
    """Return a row and its entry as values by ``COLUMNS``; LedgerBroken if the entry can't be read."""
    try:
        entry = json.loads(row.entry)
        values = {**entry, "sequence": row.sequence, "time": row.time, "previous": row.previous, "hash": row.hash}
        return {name: values[name] for name in COLUMNS}
    except (ValueError, TypeError, KeyError):
        raise LedgerBroken(
            f"Row {row.sequence} of the audit log is of another version, or was edited. Run: medvision audit-log verify"
        ) from None


class _Counted:
    def __init__(self, values: Iterable[dict[str, Any]]) -> None:
        self._values = values
        self.n = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for value in self._values:
            self.n += 1
            yield value


def _write_json_lines(rows: Iterable[dict[str, Any]], file: BinaryIO) -> None:
    for row in rows:
        file.write(canonical_json(row).encode() + b"\n")


def _write_csv(rows: Iterable[dict[str, Any]], file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        nested = {name: canonical_json(row[name]) for name in _NESTED if row[name] is not None}
        writer.writerow({**row, **nested})
    text.flush()
    text.detach()


def _write_parquet(rows: Iterable[dict[str, Any]], file: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    figures = pa.map_(pa.string(), pa.float64())
    types = {
        "sequence": pa.int64(),
        "scores": figures,
        "thresholds": figures,
        "prediction_set": pa.list_(pa.string()),
        "is_abstention": pa.bool_(),
        "is_indeterminate": pa.bool_(),
        "latency_ms": pa.float64(),
    }
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    left = iter(rows)
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(left, _GROUP)):
            maps = [{**row, **{name: list(row[name].items()) for name in ("scores", "thresholds")}} for row in group]
            writer.write_table(pa.Table.from_pylist(maps, schema))
