"""The heads of the audit log: a file beside it, or on another disk, that says how far the chain had come, and when.

Who can cut rows off the database leaves a chain that is whole; it no longer holds what the heads tell of then.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medvision.errors import AuditUnavailable, LedgerBroken
from medvision.files import canonical_json, sync_directory
from medvision.serving.audit_chain import Head

_HEAD = TypeAdapter(Head)


def append_head(path: Path, head: Head) -> None:
    """Append a head and return when it is on the disk; OSError, with the file as it was, if it can't be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = _end_of_last_line(handle)
        os.ftruncate(handle, end)
        try:
            line = canonical_json(vars(head)).encode() + b"\n"
            while line:
                end += (written := os.pwrite(handle, line, end))
                line = line[written:]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, _end_of_last_line(handle))
            raise
    finally:
        os.close(handle)
    if is_new:
        sync_directory(path.parent)


def read_heads(path: Path) -> list[Head]:
    """Return the heads of a file, in their order, none if there is no file; LedgerBroken names a damaged line.

    A last line without its end was left by a kill, and is none. AuditUnavailable if the file can't be read.
    """
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuditUnavailable(f"{path} can't be read: {error.strerror}.") from None
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse(path: Path, number: int, line: bytes) -> Head:
    try:
        return _HEAD.validate_json(line, strict=True)
    except ValidationError:
        raise LedgerBroken(
            f"Line {number} of {path} is damaged: what was cut off the audit log would not show. "
            "Restore the file from a backup."
        ) from None


def _end_of_last_line(handle: int) -> int:
    """Return the length of a file without the torn line that a kill, or a full disk, has left at its end."""
    size = os.fstat(handle).st_size
    # A line has some 200 bytes.
    start = max(0, size - 4096)
    return start + os.pread(handle, size - start, start).rfind(b"\n") + 1
