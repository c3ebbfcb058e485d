"""The rows of the audit log as a hash chain, and what is found where somebody has touched it.

Each row holds the hash of the one before and its own number, so that a row that is edited, deleted, moved or inserted
is named. A tail that is cut off, or written anew, leaves a chain whole: that shows by the heads, which are kept apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from medvision.errors import LedgerBroken
from medvision.files import fingerprint

FIRST = "0" * 64


@dataclass(frozen=True)
class Row:
    """One row: ``sequence`` counts from 1 and is the order; ``time`` is what the clock said, UTC.

    ``entry`` is canonical JSON; ``hash`` is the SHA-256 of all the others as canonical JSON.
    """

    sequence: int
    time: str
    request_id: str
    entry: str
    previous: str
    hash: str = ""


@dataclass(frozen=True)
class Head:
    """How far a chain had come: number and hash of its last row, 0 and zeros before the first.

    ``event``: a server has started, has closed the log, or has made a mark on its way.
    """

    event: Literal["start", "mark", "close"]
    sequence: int
    hash: str
    time: str


@dataclass(frozen=True)
class CheckedChain:
    """A chain that is whole: how many rows, the hash of the last one, and how many heads it was held against."""

    n_rows: int
    head: str
    n_heads: int


def hash_row(row: Row) -> str:
    """Return the hash that a row must have; "" for one with other things than text in it, which a database lets in."""
    try:
        return fingerprint({name: value for name, value in vars(row).items() if name != "hash"})
    except (TypeError, ValueError):
        return ""


def chain(last: Row | None, entries: Iterable[tuple[str, str]], time: str) -> list[Row]:
    """Return entries, each a request id and a text, as the rows that follow the ``last``."""
    rows = []
    for request_id, entry in entries:
        number, previous = (last.sequence + 1, last.hash) if last else (1, FIRST)
        row = Row(number, time, request_id, entry, previous)
        last = replace(row, hash=hash_row(row))
        rows.append(last)
    return rows


def check_chain(rows: Iterable[Row], heads: Sequence[Head], expected: str | None = None) -> CheckedChain:
    """Check every row, as they come; LedgerBroken names the first that is bad, by its number.

    Parameters
    ----------
    rows: in the order of their numbers.
    heads: those that were known before the first row was read.
    expected: the hash of a row that must be there, which somebody has kept.
    """
    due, added = _hashes_by_row(heads), _added_between(heads)
    last, proven, is_found = None, 0, expected in (None, FIRST)
    for number, row in enumerate(rows, start=1):
        _check_row(number, row, last)
        if number in added:
            raise _broken(number, "was added while no server was writing")
        if due.get(number, {row.hash}) != {row.hash}:
            raise _broken(number, f"is not the one that was written, and so may be each from row {proven + 1} on")
        proven = number if number in due else proven
        is_found = is_found or row.hash == expected
        last = row
    n_rows = last.sequence if last else 0
    if max(due, default=0) > n_rows:
        raise _broken(n_rows + 1, f"is missing: {max(due)} rows were written")
    if not is_found:
        raise _broken(n_rows + 1, f"is missing, or others were written anew: no row has the expected hash {expected}")
    return CheckedChain(n_rows, last.hash if last else FIRST, len(heads))


def check_end(n_rows: int, heads: Sequence[Head]) -> None:
    """Raise LedgerBroken if rows came after the log was closed; ``heads``: as they stand after the last row was read.

    A server that was killed has closed nothing: what is added behind it does not show.
    """
    if heads and heads[-1].event == "close" and n_rows > heads[-1].sequence:
        raise _broken(heads[-1].sequence + 1, "was added while no server was writing")


def _check_row(number: int, row: Row, last: Row | None) -> None:
    if row.sequence > number:
        raise _broken(number, "is missing")
    if row.sequence < number:
        raise _broken(row.sequence, "was inserted")
    if row.hash != hash_row(row):
        raise _broken(number, "was edited or moved")
    if row.previous != (last.hash if last else FIRST):
        # Its own hash is right, so that it is as it was written: after another row than the one that stands there now.
        raise _broken(max(number - 1, 1), f"was replaced: row {number} was written after another one")


def _hashes_by_row(heads: Iterable[Head]) -> dict[int, set[str]]:
    due: dict[int, set[str]] = {}
    for head in heads:
        if head.sequence:
            due.setdefault(head.sequence, set()).add(head.hash)
    return due


def _added_between(heads: Sequence[Head]) -> set[int]:
    """Return the first row of each that stands between the end of one server and the start of the next."""
    return {
        before.sequence + 1
        for before, after in pairwise(heads)
        if before.event == "close" and after.sequence > before.sequence and after.event == "start"
    }


def _broken(number: int, what: str) -> LedgerBroken:
    return LedgerBroken(
        f"Row {number} of the audit log {what}. What was answered is no longer proven from there on. "
        "Keep the log as it is for whoever investigates, and compare it with a backup."
    )
