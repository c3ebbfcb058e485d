"""What a compressed frame says of its own size, read before a decoder takes memory for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from medvision.errors import DecodeRejected

_JPEG_2000 = b"\xff\x4f\xff\x51"
# Start of frame, of all kinds of JPEG and of JPEG-LS; C4, C8 and CC among them are other things.
_FRAME_STARTS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_START_OF_SCAN = 0xDA
# Rounds of OpenJPEG's loop over packets, and what it keeps for each tile: 5 kB.
_MAX_PACKETS = 1_000_000
_MAX_TILES = 4096
# Each scan of a progressive JPEG goes over the whole picture: 25 for the largest, where writers make about 10.
_MAX_SCANNED_PIXELS = 1_000_000_000
# Precincts of less than 32 x 32 samples: OpenJPEG keeps some 100 bytes for each.
_SMALLEST_PRECINCT = 5


@dataclass(frozen=True)
class FrameSize:
    """Size of a compressed frame and bits of a sample, as its own header has them."""

    rows: int
    columns: int
    samples: int
    bits: int


def read_frame_size(content: bytes) -> FrameSize:
    """Return the size that a JPEG, JPEG-LS or JPEG 2000 codestream states.

    Raises DecodeRejected: none of these, no size in it, or parts so small that decoding would take memory without end.
    """
    try:
        if content.startswith(_JPEG_2000):
            return _read_jpeg_2000(content)
        if content.startswith(b"\xff\xd8"):
            return _read_jpeg(content)
    except (struct.error, IndexError):
        raise DecodeRejected("a compressed frame that was cut off") from None
    if content[4:8] == b"jP  ":
        raise DecodeRejected("JPEG 2000 inside a JP2 file, which PS3.5 A.4.4 does not allow; expected its codestream")
    raise DecodeRejected("a compressed frame that is neither JPEG nor JPEG-LS nor JPEG 2000")


def check_scans(content: bytes) -> None:
    """Raise DecodeRejected for a JPEG whose scans are so many that it would take minutes to decode."""
    size = read_frame_size(content)
    n_scans = content.count(bytes((0xFF, _START_OF_SCAN)))
    if n_scans * size.rows * size.columns > _MAX_SCANNED_PIXELS:
        raise DecodeRejected(f"a JPEG of {n_scans:,} scans; at most {_MAX_SCANNED_PIXELS:,} pixels are gone over")


def _read_jpeg(content: bytes) -> FrameSize:
    position = 2
    while content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _FRAME_STARTS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", content, position + 4)
            return FrameSize(rows, columns, samples, bits)
        if marker == _START_OF_SCAN:
            break
        position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    raise DecodeRejected("a compressed frame without its size")


def _read_jpeg_2000(content: bytes) -> FrameSize:
    # Without its end (EOC), OpenJPEG would leave the rest of the picture gray.
    # A byte of padding may follow.
    if b"\xff\xd9" not in content.rstrip(b"\0")[-3:]:
        raise DecodeRejected("a JPEG 2000 frame that was cut off")
    # ISO/IEC 15444-1, A.5.1: SIZ follows at once.
    length, _, right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = struct.unpack_from(
        ">HHIIIIIIIIH", content, 4
    )
    n_tiles = -(-(right - tile_left) // max(tile_width, 1)) * -(-(bottom - tile_top) // max(tile_height, 1))
    if n_tiles > _MAX_TILES:
        raise DecodeRejected(f"a JPEG 2000 frame of {n_tiles:,} tiles; at most {_MAX_TILES:,} are read")
    subsampling = {content[42 + 3 * component + 1 : 42 + 3 * component + 3] for component in range(samples)}
    if subsampling != {b"\x01\x01"}:
        raise DecodeRejected("a JPEG 2000 frame with subsampled components")
    _check_coding_style(content, 4 + length, n_tiles * samples)
    return FrameSize(bottom - top, right - left, samples, (content[42] & 127) + 1)


def _check_coding_style(content: bytes, position: int, n_parts: int) -> None:
    # A.6.1: COD, in the main header, before the first tile (SOT, FF90).
    while (marker := content[position : position + 2]) not in {b"\xff\x52", b"\xff\x90", b""}:
        if marker[0] != 0xFF:
            raise DecodeRejected("a damaged JPEG 2000 frame")
        position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    if marker != b"\xff\x52":
        raise DecodeRejected("a JPEG 2000 frame without its coding style")
    style, _, n_layers, _, n_levels = struct.unpack_from(">BBHBB", content, position + 4)
    if n_parts * n_layers * (n_levels + 1) > _MAX_PACKETS:
        raise DecodeRejected(f"a JPEG 2000 frame of more than {_MAX_PACKETS:,} packets")
    precincts = content[position + 14 : position + 15 + n_levels] if style & 1 else b""
    # The first is that of the smallest picture, which may be small.
    if any(min(size & 15, size >> 4) < _SMALLEST_PRECINCT for size in precincts[1:]):
        raise DecodeRejected("a JPEG 2000 frame of tiny precincts")
