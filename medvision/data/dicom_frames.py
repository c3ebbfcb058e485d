"""One frame of a DICOM file: the stored values, before they mean anything."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvision.data.codestreams import check_scans, read_frame_size
from medvision.data.dicom_file import PLUGINS, DicomFile
from medvision.data.limits import check_size
from medvision.errors import DecodeRejected

_GRAY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_RLE = "1.2.840.10008.1.2.5"
# The longest multi-frame files have some 10,000.
_MAX_FRAMES = 100_000


@dataclass(frozen=True)
class Layout:
    """How pixels are stored; ``photometric`` is one of those that are read."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    photometric: str
    is_planar: bool

    @property
    def frame_bytes(self) -> int:
        """Return the size of a frame that is not compressed."""
        size = self.rows * self.columns * self.samples * self.bits_allocated // 8
        return size // 3 * 2 if self.photometric == "YBR_FULL_422" else size


def read_layout(dicom: DicomFile) -> Layout:
    """Return how a file's pixels are stored.

    Raises DecodeRejected: no pixels, pixels of a kind that is not read, too many of them, or not all of them there.
    """
    _check_is_image(dicom)
    layout = Layout(
        rows=_whole(dicom, "Rows"),
        columns=_whole(dicom, "Columns"),
        samples=_whole(dicom, "SamplesPerPixel", 1),
        frames=_whole(dicom, "NumberOfFrames", 1),
        bits_allocated=_whole(dicom, "BitsAllocated"),
        bits_stored=_whole(dicom, "BitsStored"),
        is_signed=_whole(dicom, "PixelRepresentation", 0) == 1,
        photometric=_photometric(dicom),
        is_planar=_whole(dicom, "PlanarConfiguration", 0) == 1,
    )
    check_size(layout.columns, layout.rows)
    _check_samples(layout, _whole(dicom, "HighBit", layout.bits_stored - 1))
    _check_length(dicom, layout)
    return layout


def read_frame(dicom: DicomFile, layout: Layout, frame: int) -> np.ndarray:
    """Decode one frame: (rows, columns) of stored values, or (rows, columns, 3) in RGB; DecodeRejected if damaged."""
    from pydicom.pixels import get_decoder

    if not 0 <= frame < layout.frames:
        raise DecodeRejected(f"no frame {frame}; the file has {layout.frames}, the first of which is 0")
    options: Any = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.is_signed),
        "photometric_interpretation": layout.photometric,
        "planar_configuration": int(layout.is_planar),
        "pixel_keyword": "PixelData",
    }
    if dicom.is_encapsulated:
        source: Any = _encapsulate(_read_compressed(dicom, layout, frame))
        frame, options["number_of_frames"] = 0, 1
    else:
        source, options["number_of_frames"] = dicom.stream, layout.frames
        # 8-bit values in 16-bit words come in pairs that are swapped.
        options["pixel_vr"] = (
            "OB" if layout.bits_allocated > 8 or dicom.header.original_encoding[1] else _pixel_vr(dicom)
        )
        dicom.stream.seek(dicom.pixel_offset or 0)
    pixels, _ = get_decoder(dicom.transfer_syntax).as_array(
        source, index=frame, decoding_plugin=PLUGINS[dicom.transfer_syntax], **options
    )
    return pixels


def _check_is_image(dicom: DicomFile) -> None:
    modality = dicom.header.get("Modality")
    if modality in {"SEG", "RTDOSE"}:
        kind = "a segmentation" if modality == "SEG" else "a dose grid"
        raise DecodeRejected(f"{kind}, not an image of the patient; leave it out of the dataset")
    if dicom.has_float_pixels:
        raise DecodeRejected("floating-point pixels, which have no fixed range; expected 8 or 16 bits")
    if dicom.pixel_offset is None or "Rows" not in dicom.header:
        raise DecodeRejected("a DICOM file without pixels; leave it out of the dataset")


def _whole(dicom: DicomFile, keyword: str, default: int | None = None) -> int:
    value = dicom.header.get(keyword)
    if value is None or value == "":
        value = default
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise DecodeRejected(f"a DICOM file without a valid {keyword}")
    return int(value)


def _photometric(dicom: DicomFile) -> str:
    value = dicom.header.get("PhotometricInterpretation")
    if value not in _GRAY + _COLOUR:
        raise DecodeRejected(f"a photometric interpretation that is not read; expected {', '.join(_GRAY + _COLOUR)}")
    return str(value)


def _check_samples(layout: Layout, high_bit: int) -> None:
    if layout.bits_allocated == 1:
        raise DecodeRejected("one bit a pixel: a mask, not an image; leave it out of the dataset")
    if layout.bits_allocated not in {8, 16, 32} or not 1 <= layout.bits_stored <= layout.bits_allocated:
        raise DecodeRejected(f"{layout.bits_stored} of {layout.bits_allocated} bits a pixel; expected 8, 16 or 32")
    # PS3.5 8.1.1: no other place is left for them; pydicom would take the wrong bits.
    if high_bit != layout.bits_stored - 1:
        raise DecodeRejected(
            f"a high bit of {high_bit}; expected {layout.bits_stored - 1} for {layout.bits_stored} bits"
        )
    if layout.samples != (1 if layout.photometric in _GRAY else 3):
        raise DecodeRejected(f"{layout.samples} samples a pixel, which {layout.photometric} does not have")
    if not 1 <= layout.frames <= _MAX_FRAMES:
        raise DecodeRejected(f"{layout.frames:,} frames; from 1 to {_MAX_FRAMES:,} are read")


def _check_length(dicom: DicomFile, layout: Layout) -> None:
    is_compressed = PLUGINS[dicom.transfer_syntax] != ""
    if is_compressed != dicom.is_encapsulated:
        raise DecodeRejected("pixels that are not stored as the transfer syntax says")
    if is_compressed and layout.frames > dicom.pixel_bytes // 8:
        raise DecodeRejected(f"a DICOM file that was cut off: {layout.frames:,} frames have no room in it")
    if not is_compressed and layout.frames * layout.frame_bytes > dicom.pixel_bytes:
        raise DecodeRejected(
            f"a DICOM file that was cut off: expected {layout.frames * layout.frame_bytes:,} bytes of pixels, "
            f"found {dicom.pixel_bytes:,}"
        )


def _read_compressed(dicom: DicomFile, layout: Layout, frame: int) -> bytes:
    items = _find_items(dicom)
    table, fragments = items[0], items[1:]
    if layout.frames > 1 and len(fragments) != layout.frames:
        fragments = _of_frame(dicom, table, fragments, layout.frames, frame)
    elif layout.frames > 1:
        fragments = fragments[frame : frame + 1]
    content = b"".join(_read_at(dicom, *fragment) for fragment in fragments)
    if dicom.transfer_syntax == _RLE:
        # PS3.5 annex G: a run of one byte takes two. More than that is not needed, and could stand for 64 times more.
        if len(content) > 2 * layout.frame_bytes + 1024:
            raise DecodeRejected("run-length coded pixels that are longer than their frame")
        return content
    size = read_frame_size(content)
    if (size.rows, size.columns, size.samples) != (layout.rows, layout.columns, layout.samples):
        raise DecodeRejected(
            f"a compressed frame of {size.columns} x {size.rows} x {size.samples}, where the header says "
            f"{layout.columns} x {layout.rows} x {layout.samples}"
        )
    if PLUGINS[dicom.transfer_syntax] == "pillow":
        check_scans(content)
        if size.bits != 8:
            raise DecodeRejected(f"JPEG of {size.bits} bits a sample; expected 8. Convert it to JPEG 2000 or RLE")
    if size.bits > layout.bits_allocated:
        raise DecodeRejected(
            f"compressed samples of {size.bits} bits, where the header has room for {layout.bits_allocated}"
        )
    return content


def _find_items(dicom: DicomFile) -> list[tuple[int, int]]:
    """Return place and length of the offset table and of each fragment (PS3.5 A.4)."""
    items: list[tuple[int, int]] = []
    position = dicom.pixel_offset or 0
    while len(items) <= 2 * _MAX_FRAMES:
        tag, length = _unpack_item(_read_at(dicom, position, 8))
        if tag == _END and items:
            return items
        if tag != _ITEM or position + 8 + length > dicom.size_bytes:
            break
        items.append((position + 8, length))
        position += 8 + length
    raise DecodeRejected("a DICOM file that was cut off, or is damaged: its compressed frames have no end")


def _unpack_item(content: bytes) -> tuple[int, int]:
    if len(content) < 8:
        return 0, 0
    group, element, length = struct.unpack("<HHI", content)
    return group << 16 | element, length


def _of_frame(
    dicom: DicomFile, table: tuple[int, int], fragments: list[tuple[int, int]], n_frames: int, frame: int
) -> list[tuple[int, int]]:
    """Return the fragments of a frame by the offset table, which counts from the first fragment's item tag."""
    if table[1] != 4 * n_frames or not fragments:
        raise DecodeRejected("compressed frames in several parts each, without a table of where they begin")
    offsets = struct.unpack(f"<{n_frames}I", _read_at(dicom, *table))
    starts = [offset + fragments[0][0] for offset in (*offsets, _find_end(fragments))]
    return [fragment for fragment in fragments if starts[frame] <= fragment[0] < starts[frame + 1]]


def _find_end(fragments: list[tuple[int, int]]) -> int:
    return fragments[-1][0] + fragments[-1][1] - fragments[0][0] + 8


def _read_at(dicom: DicomFile, position: int, length: int) -> bytes:
    dicom.stream.seek(position)
    return dicom.stream.read(length)


def _encapsulate(content: bytes) -> bytes:
    from pydicom.encaps import encapsulate

    return encapsulate([content], has_bot=False)


def _pixel_vr(dicom: DicomFile) -> str:
    return _read_at(dicom, (dicom.pixel_offset or 0) - 8, 2).decode("latin-1")
