"""Unpack a dataset that comes as one zip: whole or not at all, inside its folder, within bounds, in flat memory.

Members are written one by one as they are inflated; what a header says of sizes is believed only to refuse early.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from medvision.data.npz import is_npz, unpack_npz
from medvision.errors import DataInvalid, DiskFull, MedvisionError
from medvision.files import fingerprint, is_disk_full, locked, read_json, write_json

MAX_ENTRIES = 200_000
MAX_BYTES = 64 << 30
# Deflate reaches 1,032 to 1, and images of a whole dataset 3 to 1: a folder of black DICOM images is let through.
_MAX_RATIO = 100
_FREE_OF_RATIO = 64 << 20
# What must stay free on the disk, for the records of the dataset.
_RESERVE = 1 << 30
_CHUNK = 1 << 20

_MARKER = ".unpacked.json"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ARCHIVES = re.compile(r"\.(zip|npz|7z|rar|tar|tgz|tbz2?|txz|bz2|xz|zst|(?<!\.nii\.)gz)$", re.IGNORECASE)
# What the reader of zips raises; ValueError also of names that are no UTF-8.
_OF_DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, ValueError, struct.error)
_ARCHIVE_STARTS = (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a zip of a dataset, or a MedMNIST .npz, into a folder of its own in ``into``; return that folder.

    It appears under its name when it is whole; an archive that was unpacked before is left as it is.

    Raises
    ------
    DataInvalid: no zip, damaged, encrypted, too many or too large members, a member that would lie outside the folder,
    is a link, stands twice (also in another case) or is an archive itself, or a folder that another archive has made.
    DiskFull: the members don't fit on the disk.
    """
    target = into / _folder_name(archive)
    with locked(into / ".unpack.lock"):
        made_from = _identify(archive)
        # Of a run that was killed.
        for left_over in into.glob(".unpacking-*"):
            shutil.rmtree(left_over)
        if target.exists():
            _check_same(target, made_from)
            return target
        with _temporary_folder(into) as folder:
            _unpack_into(archive, folder)
            write_json(folder / _MARKER, made_from)
            folder.chmod(0o755)
            os.replace(folder, target)
    return target


def _folder_name(archive: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", archive.stem).strip("-.")
    return name or "dataset"


def _identify(archive: Path) -> dict[str, str]:
    try:
        status = archive.stat()
    except OSError:
        raise DataInvalid(f"There is no archive {archive}.") from None
    return {"archive": fingerprint([status.st_size, status.st_mtime_ns])}


def _check_same(target: Path, made_from: dict[str, str]) -> None:
    if not (target / _MARKER).is_file() or read_json(target / _MARKER) != made_from:
        raise DataInvalid(
            f"{target} is there already, and was not unpacked from this archive as it is now. Delete the folder to "
            "unpack it anew, or give the archive another name."
        )


@contextmanager
def _temporary_folder(into: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=into, prefix=".unpacking-"))
    try:
        yield folder
    except BaseException as error:
        if is_disk_full(error) and not isinstance(error, DiskFull):
            raise DiskFull(f"The disk of {into} is full. Free some space and run again.") from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack_into(archive: Path, folder: Path) -> None:
    try:
        _check_count(_count_entries(archive), archive)
        with zipfile.ZipFile(archive) as file:
            _check_count(len(file.infolist()), archive)
            members = [member for member in file.infolist() if not _is_junk(member.orig_filename)]
            for member in members:
                _check_member(member)
            _check_collisions(members)
            budget = _Budget(archive, folder)
            if is_npz(file):
                unpack_npz(file, folder, spend=budget.spend)
            else:
                _unpack_zip(file, members, folder, budget)
    except MedvisionError:
        raise
    except _OF_DAMAGE as error:
        raise DataInvalid(f"{archive} is not a zip, or damaged: {error}.") from None
    except OSError as error:
        # What a header says leads to places and names that no disk has.
        if is_disk_full(error):
            raise
        raise DataInvalid(f"{archive} can't be unpacked, or is damaged: {error.strerror or error}.") from None
    # zlib.error, of a damaged stream, is an Exception of its own.
    except Exception as error:
        if type(error).__module__ == "zlib":
            raise DataInvalid(f"{archive} is damaged: {error}.") from None
        raise


def _check_count(n_entries: int, archive: Path) -> None:
    if n_entries > MAX_ENTRIES:
        raise DataInvalid(f"{archive} has {n_entries:,} entries; at most {MAX_ENTRIES:,} are unpacked.")


def _count_entries(archive: Path) -> int:
    """Return how many entries a zip says it has; its reader would hold all of them in memory first.

    APPNOTE 6.3.10, 4.3.16 (end of central directory) and 4.3.14 (Zip64); 0 where there is none.
    """
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 100))
        tail = file.read()
    end, end64 = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
    if end64 >= 0 and len(tail) >= end64 + 48:
        # Its size stands at 40; an entry has at least 46 bytes.
        return max(int.from_bytes(tail[end64 + 32 : end64 + 40], "little"), _least(tail[end64 + 40 : end64 + 48]))
    if end < 0:
        return 0
    return max(int.from_bytes(tail[end + 10 : end + 12], "little"), _least(tail[end + 12 : end + 16]))


def _least(size_bytes: bytes) -> int:
    # An entry has 46 bytes and its name: a directory of more than so many bytes each has more entries than it says.
    return int.from_bytes(size_bytes, "little") // 256


class _Budget:
    """Count what is written, and stop before it is too much."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive = archive
        self._free = shutil.disk_usage(folder).free - _RESERVE
        self._allowed = min(MAX_BYTES, _FREE_OF_RATIO + _MAX_RATIO * archive.stat().st_size)
        self._spent = 0

    def check(self, size_bytes: int) -> None:
        """Raise if so much more would be too much."""
        total = self._spent + size_bytes
        if total > self._allowed:
            raise DataInvalid(
                f"{self._archive} inflates to more than {self._allowed / 1e9:.1f} GB: a bomb, or a dataset that is too "
                "large. Unpack it yourself if you trust it, and give the folder."
            )
        if total > self._free:
            raise DiskFull(
                f"{self._archive} inflates to more than the {max(0, self._free) / 1e9:.1f} GB that the disk has. "
                "Free some space."
            )

    def spend(self, size_bytes: int) -> None:
        """Count bytes that are about to be written."""
        self.check(size_bytes)
        self._spent += size_bytes


def _unpack_zip(file: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, budget: _Budget) -> None:
    files = [member for member in members if not member.orig_filename.endswith("/")]
    if not files:
        raise DataInvalid(f"{file.filename} holds no files.")
    if sum(member.compress_size for member in files) > Path(str(file.filename)).stat().st_size:
        raise DataInvalid(f"{file.filename} has members that overlap: that is a bomb.")
    budget.check(sum(member.file_size for member in files))
    for member in files:
        _write_member(file, member, folder, budget.spend)


def _is_junk(name: str) -> bool:
    # What macOS adds: twins of each file, and the look of folders.
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store"


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename
    reason = _fault_of_name(name) or _fault_of_kind(member)
    if reason:
        raise DataInvalid(f"The archive has an entry {_shown(name)} that {reason}. Nothing was unpacked.")


def _fault_of_name(name: str) -> str:
    # Lookalikes of dots and slashes become them here: one dot leader, full-width solidus ...
    plain = unicodedata.normalize("NFKC", name)
    parts = (plain[:-1] if plain.endswith("/") else plain).split("/")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "has control characters in its name"
    if "\\" in plain or plain.startswith("/") or re.match(r"[A-Za-z]:", plain):
        return "is an absolute path, or one with backslashes"
    if any(part.strip(" .") == "" for part in parts):
        return "would lie outside its folder, or has no name"
    if parts[0].casefold() == _MARKER:
        return "has a name that medvision keeps for itself"
    if any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts) or len(parts) > 64:
        return "has too long a name"
    return ""


def _fault_of_kind(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    expected = stat.S_IFDIR if member.orig_filename.endswith("/") else stat.S_IFREG
    if kind not in (0, expected):
        return "is a link or a device, and no file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in _METHODS:
        return f"is compressed by method {member.compress_type}, not by deflate"
    if _ARCHIVES.search(member.orig_filename):
        return "is an archive itself"
    return ""


def _check_collisions(members: list[zipfile.ZipInfo]) -> None:
    """Refuse two members that would be one file, or a file and a folder of one name, on any file system."""
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        path = PurePosixPath(_folded(member.orig_filename))
        folders.update(str(parent) for parent in path.parents)
        if member.orig_filename.endswith("/"):
            folders.add(str(path))
        elif str(path) in files:
            raise DataInvalid(
                f"The archive has two entries of the name {_shown(member.orig_filename)}, or in other case."
            )
        else:
            files.add(str(path))
    if both := files & folders:
        raise DataInvalid(f"The archive has a file and a folder of the name {_shown(min(both))}.")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 100 else name[:100] + "...")


def _write_member(file: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, spend: Callable[[int], None]) -> None:
    path = folder / member.orig_filename
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as target, file.open(member) as source:
        start = True
        while chunk := source.read(_CHUNK):
            if start and chunk.startswith(_ARCHIVE_STARTS):
                raise DataInvalid(f"The archive has an entry {_shown(member.orig_filename)} that is an archive itself.")
            start = False
            spend(len(chunk))
            target.write(chunk)
