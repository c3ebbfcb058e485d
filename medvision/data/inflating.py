"""A file read from its start, as it is or out of gzip, of which no more is inflated than was asked for."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from medvision.errors import DecodeRejected

_CHUNK = 2**20
_START_BYTES = 540


class Plain:
    """A file as it is."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self.skip_to = stream.seek

    def check_end(self) -> None:
        """Accept what follows the voxels."""


class Inflated:
    """What a gzip file holds, inflated piece by piece as it is asked for and no further."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._position = 0

    def read(self, size: int) -> bytearray:
        content = bytearray()
        while len(content) < size and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._stream.read(_CHUNK)
            if not packed:
                break
            content += self._inflater.decompress(packed, min(_CHUNK, size - len(content)))
        self._position += len(content)
        return content

    def skip_to(self, position: int) -> None:
        self.read(position - self._position)

    def check_end(self) -> None:
        """Read to the end of the stream, where zlib compares the checksum; a megabyte may follow the voxels."""
        self.read(_CHUNK)
        if not self._inflater.eof:
            raise DecodeRejected("a gzip file that was cut off, or that holds more than its header says")


def unpacked(stream: BinaryIO) -> Plain | Inflated:
    """Return a stream as it is, or, of a gzip file, what it holds."""
    is_packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    return Inflated(stream) if is_packed else Plain(stream)


def inflate_start(start: bytes) -> bytes:
    """Return the first bytes of what a gzip file holds, at most 540, as far as these of its own reach."""
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(start, _START_BYTES)
    except zlib.error:
        return b""
