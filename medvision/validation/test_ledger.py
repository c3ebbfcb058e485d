"""The ledger of a test set: what it is, and every time that a step opened it.

A test set that is looked at often enough is a training set. The first look locks its fingerprint; each look adds an
entry that carries the hash of the one before, so that an entry which is edited, deleted, moved or cut off is named.
Entries name the account and the model, and no image and no patient.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from medvision.data.manifest import Manifest
from medvision.data.split import Split
from medvision.errors import LedgerBroken, TestSetChanged
from medvision.files import fingerprint, locked, write_json, write_text

LEDGER_FILE = "test_ledger.jsonl"
HEAD_FILE = "test_ledger.head.json"
_FIRST = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One look at the test set: who, when, in which step, and for which model package."""

    sequence: int
    time: str
    who: str
    step: str
    model: str
    package_digest: str
    test_fingerprint: str
    previous: str
    hash: str


@dataclass(frozen=True)
class Usage:
    """How often a test set was looked at, for how many packages; ``head`` is the hash of the last entry."""

    looks: int
    models: int
    head: str


def fingerprint_test_set(manifest: Manifest, split: Split) -> str:
    """Return the fingerprint of the test images and their labels, whatever is on the other sides."""
    rows = manifest.rows.iloc[split.indices("test")]
    labels = (manifest.classes[label] for label in rows.label)
    return fingerprint(sorted([*row] for row in zip(rows.image_id, rows.pixel_hash, labels, strict=True)))


def look(folder: Path, *, step: str, model: str, package_digest: str, test_fingerprint: str) -> int:
    """Write down that a step opens the test set of a dataset's folder; return how often it was opened, this included.

    Raises
    ------
    TestSetChanged: the test set is not the one that was locked at the first look. Nothing is written.
    LedgerBroken: an entry was edited, deleted, moved or cut off. Nothing is written.
    """
    with locked(folder / f"{LEDGER_FILE}.lock"):
        entries = check_chain(folder)
        _check_same(entries, test_fingerprint, folder)
        content = {
            "sequence": len(entries) + 1,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "who": _who(),
            "step": step,
            "model": model,
            "package_digest": package_digest,
            "test_fingerprint": test_fingerprint,
            "previous": entries[-1].hash if entries else _FIRST,
        }
        entry = Entry(**content, hash=fingerprint(content))  # type: ignore[arg-type]
        # Whole or not at all: half a line, left by a kill, could not be told from an edit.
        write_text(folder / LEDGER_FILE, "".join(f"{_line(each)}\n" for each in (*entries, entry)))
        write_json(folder / HEAD_FILE, {"sequence": entry.sequence, "hash": entry.hash})
        return entry.sequence


def check_chain(folder: Path) -> list[Entry]:
    """Return the entries of a dataset's ledger, none if it was never used; LedgerBroken names the first bad one."""
    path, entries, previous = folder / LEDGER_FILE, [], _FIRST
    for number, line in enumerate(_lines(path), start=1):
        entry = _read(line)
        if entry is None or (entry.sequence, entry.previous) != (number, previous):
            raise _broken(path, number, "was edited, deleted or moved")
        entries.append(entry)
        previous = entry.hash
    _check_head(folder, entries)
    return entries


def usage(folder: Path) -> Usage:
    """Return how the test set of a dataset's folder has been used; LedgerBroken as ``check_chain``."""
    entries = check_chain(folder)
    return Usage(len(entries), len({entry.package_digest for entry in entries}), entries[-1].hash if entries else "")


def locked_test_set(folder: Path) -> str | None:
    """Return the fingerprint that the first look locked, None before it; LedgerBroken as ``check_chain``."""
    entries = check_chain(folder)
    return entries[0].test_fingerprint if entries else None


def _check_same(entries: list[Entry], test_fingerprint: str, folder: Path) -> None:
    if entries and entries[0].test_fingerprint != test_fingerprint:
        raise TestSetChanged(
            f"The test set of {folder.name} was locked as {entries[0].test_fingerprint[:12]} at its first use, on "
            f"{entries[0].time[:10]}; the one at hand is {test_fingerprint[:12]}. Images, labels or split changed: "
            "restore them. To use another test set on purpose, give the dataset a new name: --set dataset.name=NAME"
        )


def _check_head(folder: Path, entries: list[Entry]) -> None:
    """Miss what was cut off the end, which leaves a chain whole. A kill leaves the head one entry behind at most."""
    path = folder / HEAD_FILE
    if not path.is_file():
        if len(entries) > 1:
            raise LedgerBroken(f"{path} is missing, though {len(entries)} entries were made. {_ADVICE}")
        return
    try:
        head = json.loads(path.read_bytes())
        sequence, expected = int(head["sequence"]), head["hash"]
    except (ValueError, KeyError, TypeError):
        raise LedgerBroken(f"{path} is damaged. {_ADVICE}") from None
    if len(entries) < sequence:
        raise _broken(folder / LEDGER_FILE, len(entries) + 1, "is missing")
    if sequence < 1 or entries[sequence - 1].hash != expected:
        raise _broken(folder / LEDGER_FILE, max(sequence, 1), "is not the one that was written")
    if len(entries) > sequence + 1:
        raise LedgerBroken(f"{path} is older than the ledger beside it. {_ADVICE}")


_ADVICE = "Restore the ledger from a backup, or give the dataset a new name and hold out new images."


def _broken(path: Path, number: int, what: str) -> LedgerBroken:
    return LedgerBroken(f"Entry {number} of {path} {what}: looks at the test set are no longer counted. {_ADVICE}")


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        # Not splitlines, which takes other characters for ends of lines too.
        yield from path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n")


def _line(entry: Entry) -> str:
    return json.dumps(vars(entry), ensure_ascii=False, sort_keys=True)


def _read(line: str) -> Entry | None:
    """Return the entry of a line; None unless the line is exactly what was written of it."""
    try:
        values: dict[str, Any] = json.loads(line)
        entry = Entry(**values)
        content = {name: value for name, value in values.items() if name != "hash"}
        return entry if _line(entry) == line and fingerprint(content) == entry.hash else None
    except (ValueError, TypeError):
        return None


def _who() -> str:
    try:
        return getpass.getuser()
    # A container may run under a number that has no name: KeyError up to Python 3.12, OSError from 3.13.
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
