"""A DICOM file opened with care: its header within bounds, and where its pixels are, which are not read yet.

What a file says is checked before it is believed: the transfer syntax from the file meta, so that a deflated file is
refused before anything is inflated; lengths against the file's own size; the number of elements and bytes before the
pixels. No text of the file stands in a message: it may name the patient.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medvision.data.limits import refusing_damage
from medvision.errors import DecodeRejected

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# A header with the functional groups of some thousand frames has 2 MB and 100,000 parts: half a second to parse.
_MAX_HEADER_BYTES = 8_000_000
_MAX_READS = 200_000
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_LONG_VRS = {"OB", "OW", "OF", "OD", "OL", "OV", "UN", "UT"}

_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_DEFLATED = {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.8.1"}
# With the decoder of each. One is named, so that what else is installed can't change the pixels.
PLUGINS = {
    _IMPLICIT: "",
    _EXPLICIT: "",
    _BIG_ENDIAN: "",
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.51": "pillow",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.5": "pydicom",
}
_UNREAD = {
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
}

# pydicom reports what it finds odd, with the values, through Python's warnings, which are one for all threads.
_LOCK = threading.RLock()
_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg")


@dataclass(frozen=True)
class DicomFile:
    """The header of a file, and its pixels: from ``pixel_offset`` in ``stream``, to its end where ``is_encapsulated``.

    ``pixel_offset`` is None where there are none, or floating-point ones.
    """

    stream: BinaryIO
    size_bytes: int
    header: Dataset
    transfer_syntax: str
    pixel_offset: int | None
    pixel_bytes: int
    is_encapsulated: bool
    has_float_pixels: bool


@contextmanager
def open_dicom(file: Path | bytes) -> Iterator[DicomFile]:
    """Open a file, read its header, and close it afterwards; DecodeRejected if it is damaged or of no known kind."""
    with (
        _quiet(),
        refusing_damage("DICOM"),
        io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as stream,
    ):
        yield _read_header(stream)


def looks_like_dicom(start: bytes) -> bool:
    """Tell whether a file that starts with these bytes (at least 132) is DICOM, with or without its preamble."""
    if start[128:132] == b"DICM":
        return True
    # Without a preamble: a first element of group 0002 or 0008, with a known VR, or implicit with a short value.
    if len(start) < 132 or start[:2] not in {b"\x02\x00", b"\x08\x00", b"\x00\x08"}:
        return False
    is_explicit = start[4:6] in {b"AE", b"CS", b"DA", b"LO", b"OB", b"PN", b"SH", b"TM", b"UI", b"UL"}
    if start[:2] == b"\x00\x08":
        return is_explicit and start[2] == 0
    return start[3] == 0 and (is_explicit or (start[0] == 8 and struct.unpack("<I", start[4:8])[0] <= 64))


class _Bounded:
    """A stream that counts what is read of it, since nothing in a header bounds how much there is."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell = stream.seek, stream.tell
        self._stream = stream
        self._bytes_left, self._reads_left = _MAX_HEADER_BYTES, _MAX_READS

    def read(self, size: int) -> bytes:
        self._bytes_left -= size
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise DecodeRejected(f"a DICOM header of more than {_MAX_HEADER_BYTES:,} bytes or {_MAX_READS:,} parts")
        return self._stream.read(size)


def _read_header(stream: BinaryIO) -> DicomFile:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    size_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    start = stream.read(132)
    if not looks_like_dicom(start):
        raise DecodeRejected("not a DICOM file")
    stream.seek(132 if start[128:] == b"DICM" else 0)
    transfer_syntax = _read_transfer_syntax(stream) or _guess_transfer_syntax(stream)
    _check_transfer_syntax(transfer_syntax)
    is_implicit, is_little_endian = transfer_syntax == _IMPLICIT, transfer_syntax != _BIG_ENDIAN
    header = _read_elements(stream, size_bytes, is_implicit, is_little_endian)
    # What pydicom asks for the byte order of tables.
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    position = stream.tell()
    tag, length = _read_element_start(stream, bool(header.original_encoding[0]), is_little_endian)
    has_pixels = tag == _PIXEL_DATA
    if has_pixels and length != _UNDEFINED and stream.tell() + length > size_bytes:
        raise DecodeRejected("a DICOM file that was cut off: its pixels are not all there")
    return DicomFile(
        stream=stream,
        size_bytes=size_bytes,
        header=header,
        transfer_syntax=transfer_syntax,
        pixel_offset=stream.tell() if has_pixels else None,
        pixel_bytes=size_bytes - position if length == _UNDEFINED else length,
        is_encapsulated=length == _UNDEFINED,
        has_float_pixels=tag in _FLOAT_PIXELS,
    )


def _read_transfer_syntax(stream: BinaryIO) -> str:
    """Read the file meta, leave the stream behind it, and return its transfer syntax, "" if it has none."""
    from pydicom.filereader import read_dataset

    bounded: Any = _Bounded(stream)
    meta = read_dataset(bounded, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2 or length > 10_000)
    return str(meta.get("TransferSyntaxUID") or "")


def _guess_transfer_syntax(stream: BinaryIO) -> str:
    start = stream.read(6)
    stream.seek(-len(start), os.SEEK_CUR)
    if not (start[4:6].isalpha() and start[4:6].isupper()):
        return _IMPLICIT
    return _BIG_ENDIAN if start[0] == 0 else _EXPLICIT


def _check_transfer_syntax(transfer_syntax: str) -> None:
    if transfer_syntax in _DEFLATED:
        raise DecodeRejected("a deflated DICOM file, whose size can't be known before it is inflated; convert it first")
    if transfer_syntax in _UNREAD:
        raise DecodeRejected(f"DICOM pixels compressed as {_UNREAD[transfer_syntax]}; convert them to JPEG 2000 or RLE")
    if transfer_syntax not in PLUGINS:
        raise DecodeRejected("a DICOM transfer syntax that is not read; convert it to Explicit VR Little Endian")


def _read_elements(stream: BinaryIO, size_bytes: int, is_implicit: bool, is_little_endian: bool) -> Dataset:
    from pydicom.filereader import read_dataset

    def is_end(tag: int, vr: str | None, length: int) -> bool:
        if tag >= _PIXEL_DATA or tag in _FLOAT_PIXELS:
            return True
        # pydicom skips a value that is not there, and takes the file for ended.
        if length != _UNDEFINED and stream.tell() + length > size_bytes:
            raise DecodeRejected("a DICOM file that was cut off, or is damaged: a value is longer than the file")
        return False

    bounded: Any = _Bounded(stream)
    # Above this, a value is none of those that are asked for here.
    return read_dataset(bounded, is_implicit, is_little_endian, stop_when=is_end, defer_size=_MAX_HEADER_BYTES // 2)


def _read_element_start(stream: BinaryIO, is_implicit: bool, is_little_endian: bool) -> tuple[int, int]:
    """Read tag and length of the element at hand, leave the stream at its value; (0, 0) at the end of the file."""
    order = "<" if is_little_endian else ">"
    start = stream.read(8)
    if len(start) < 8:
        return 0, 0
    group, element = struct.unpack(order + "HH", start[:4])
    if is_implicit:
        length = struct.unpack(order + "I", start[4:])[0]
    elif start[4:6].decode("latin-1") in _LONG_VRS:
        length = struct.unpack(order + "I", stream.read(4))[0]
    else:
        length = struct.unpack(order + "H", start[6:])[0]
    return group << 16 | element, length


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
