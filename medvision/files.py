"""Files that are either whole or absent, and fingerprints of what they hold.

Everything that must survive a kill is written through this module: to a temporary file beside the target, flushed
to the disk, then renamed over it.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from medvision.errors import DataInvalid, DiskFull

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def project_root() -> Path:
    """Return the nearest folder, from the working directory upwards, that holds an MLproject; else the working one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "MLproject").is_file()), here)


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace ``path`` by what ``write`` puts into the open file: the old content stays until the new one is on disk.

    Raises DiskFull, with the old content intact and no temporary file left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            # mkstemp makes files that only their owner may read: right for secrets, not for results.
            os.fchmod(handle, 0o644)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if interruption := _interruption(error):
            raise interruption from None
        if is_disk_full(error):
            raise DiskFull(
                f"{path} could not be written: the disk is full. What was there before is intact. "
                "Free some space and run the same command again (with --resume for a training)."
            ) from error
        raise


def _interruption(error: BaseException | None) -> BaseException | None:
    """Return the exit or Ctrl-C behind an error: torch, interrupted in a write, raises an error of its own."""
    while error is not None:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            return error
        error = error.__context__
    return None


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it was raised from, says that no space is left.

    torch wraps the operating system's error in a RuntimeError that keeps only the text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if isinstance(error, RuntimeError) and "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    atomic_write(path, lambda file: file.write(text.encode()))


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    # Never readable by others, not even before a chmod.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity raise ValueError, since JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file raises DataInvalid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataInvalid(f"{path} is missing. Run the step that makes it first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataInvalid(f"{path} is not valid JSON ({error}). Delete it and run the step that makes it.") from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` among processes; the system releases it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value in canonical form, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one text of a JSON-like value: keys sorted, no blanks; NaN and infinity raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _sha256(file: BinaryIO) -> str:
    # Python 3.10 has no hashlib.file_digest.
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def sync_directory(directory: Path) -> None:
    """Return only when the names in a folder, after a rename say, are on the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
