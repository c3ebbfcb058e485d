"""From stored values to gray levels and colours, in the order of DICOM PS3.4 N.2: modality, VOI, presentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvision.data.dicom_frames import Layout
from medvision.data.windowing import between, linear, linear_exact, sigmoid, to_uint8
from medvision.errors import DecodeRejected
from medvision.windows import parse_window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FUNCTIONS = {"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}
# What the 12 bits of a CT scanner hold.
_CT_RANGE = (-1024.0, 3071.0)
_NAMES = ("Red", "Green", "Blue")


@dataclass(frozen=True)
class _Table:
    """A lookup table (PS3.3 C.11.1.1): values below ``first`` have its first entry, those above the last its last."""

    first: int
    entries: np.ndarray
    brightest: int

    def __getitem__(self, values: np.ndarray) -> np.ndarray:
        return self.entries[np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)]


def show_gray(stored: np.ndarray, header: Dataset, layout: Layout, frame: int, window: str) -> np.ndarray:
    """Return the stored values of a gray frame as uint8 (rows, columns), 0 black; padding is black.

    Through ``window`` if it is given, else through the file's own VOI lookup table or first window. Where it has
    neither: 8 bits from end to end, a CT from -1024 to 3071 HU, and anything else from the darkest to the brightest
    value of this frame, since it has no scale of its own.
    """
    padding = _find_padding(stored, header)
    content = stored[~padding] if padding.any() and not padding.all() else stored
    ends = (int(content.min()), int(content.max()))
    low, high = int(stored.min()), int(stored.max())
    if high - low < 2**16:
        # Once for each value there is, and not for each pixel.
        table = _show(np.arange(low, high + 1), ends, header, layout, frame, window)
        shown = table[stored.astype(np.int64) - low]
    else:
        shown = _show(stored, ends, header, layout, frame, window)
    shown[padding] = 0
    return shown


def show_palette(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Return a frame of palette indices as RGB, uint8 (rows, columns, 3)."""
    if any(f"Segmented{name}PaletteColorLookupTableData" in header for name in _NAMES):
        raise DecodeRejected("a segmented palette, which is not read; convert the file to RGB")
    channels = []
    for name in _NAMES:
        descriptor = header.get(f"{name}PaletteColorLookupTableDescriptor")
        table = _read_table(descriptor, header.get(f"{name}PaletteColorLookupTableData"), header, is_signed=False)
        channels.append(to_uint8(np.minimum(table[stored] / table.brightest, 1)))
    return np.stack(channels, axis=2)


def show_colour(stored: np.ndarray, layout: Layout) -> np.ndarray:
    """Return RGB samples of any width as uint8 (rows, columns, 3)."""
    if stored.dtype == np.uint8 and layout.bits_stored == 8:
        return np.ascontiguousarray(stored)
    if layout.is_signed:
        raise DecodeRejected("signed colour samples; expected unsigned ones")
    return to_uint8(np.minimum(stored / float(2**layout.bits_stored - 1), 1))


def _show(
    stored: np.ndarray, ends: tuple[int, int], header: Dataset, layout: Layout, frame: int, window: str
) -> np.ndarray:
    rescale = _item_of_frame(header, "PixelValueTransformationSequence", frame)
    values = _apply_modality(stored, rescale, header)
    if window:
        _check_hounsfield(header, rescale, window)
        fractions = linear(values, *parse_window(window))
    else:
        fractions = _apply_voi(values, ends, rescale, header, layout, frame)
    return to_uint8(1 - fractions if layout.photometric == "MONOCHROME1" else fractions)


def _apply_modality(stored: np.ndarray, rescale: Dataset, header: Dataset) -> np.ndarray:
    if header.get("ModalityLUTSequence"):
        return _read_lut(header.ModalityLUTSequence[0], header)[stored].astype(np.float64)
    slope, intercept = _numbers(rescale, "RescaleSlope"), _numbers(rescale, "RescaleIntercept")
    if not slope or not intercept:
        return stored.astype(np.float64)
    if slope[0] == 0:
        raise DecodeRejected("a rescale slope of 0, which makes all values the same")
    return stored * slope[0] + intercept[0]


def _apply_voi(
    values: np.ndarray, ends: tuple[int, int], rescale: Dataset, header: Dataset, layout: Layout, frame: int
) -> np.ndarray:
    voi = _item_of_frame(header, "FrameVOILUTSequence", frame)
    if voi.get("VOILUTSequence"):
        table = _read_lut(voi.VOILUTSequence[0], header)
        return np.minimum(table[values] / table.brightest, 1)
    centers, widths = _numbers(voi, "WindowCenter"), _numbers(voi, "WindowWidth")
    if centers and widths:
        return _apply_window(values, centers[0], widths[0], str(voi.get("VOILUTFunction") or "LINEAR"))
    if layout.bits_stored > 8 and _is_hounsfield(header, rescale):
        return between(values, *_CT_RANGE)
    if layout.bits_stored <= 8:
        half = 2 ** (layout.bits_stored - 1)
        ends = (-half, half - 1) if layout.is_signed else (0, 2 * half - 1)
    # A slope may be negative, and a modality table anything.
    limits = _apply_modality(np.array(ends), rescale, header)
    return between(values, float(limits.min()), float(limits.max()))


def _apply_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    if function not in _FUNCTIONS:
        raise DecodeRejected(f"a VOI LUT function that is not read; expected {', '.join(_FUNCTIONS)}")
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise DecodeRejected("a window without a width")
    return _FUNCTIONS[function](values, center, width)


def _check_hounsfield(header: Dataset, rescale: Dataset, window: str) -> None:
    if not _is_hounsfield(header, rescale):
        raise DecodeRejected(
            f"the window {window} was asked for, but this file has no Hounsfield units: expected a CT with rescale "
            "slope and intercept"
        )


def _is_hounsfield(header: Dataset, rescale: Dataset) -> bool:
    # PS3.3 C.8.2.1.1.2: of a CT, values without a type are HU.
    return (
        header.get("Modality") == "CT"
        and bool(_numbers(rescale, "RescaleSlope") and _numbers(rescale, "RescaleIntercept"))
        and (rescale.get("RescaleType") or "HU") == "HU"
    )


def _find_padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Return where pixels only fill the frame (PS3.3 C.7.5.1.1.2)."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return np.zeros(stored.shape, dtype=bool)
    # Of signed pixels, some writers give it as the unsigned number with the same bits.
    bits = 8 * stored.dtype.itemsize
    if stored.dtype.kind == "i" and value >= 2 ** (bits - 1):
        value -= 2**bits
    if not isinstance(limit, int):
        return stored == value
    return (stored >= min(value, limit)) & (stored <= max(value, limit))


def _item_of_frame(header: Dataset, keyword: str, frame: int) -> Dataset:
    """Return what has a frame's attributes: its own item, that of all frames, or the header (PS3.3 C.7.6.16)."""
    own = (header.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    shared = (header.get("SharedFunctionalGroupsSequence") or [])[:1]
    for groups in (*own, *shared):
        if groups.get(keyword):
            return groups[keyword][0]
    return header


def _read_lut(item: Dataset, header: Dataset) -> _Table:
    is_signed = header.get("PixelRepresentation") == 1
    return _read_table(item.get("LUTDescriptor"), item.get("LUTData"), header, is_signed)


def _read_table(descriptor: Any, data: Any, header: Dataset, is_signed: bool) -> _Table:
    if descriptor is None or data is None or len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        raise DecodeRejected("a damaged lookup table")
    # 0 stands for 65,536, which has no room in 16 bits.
    length, first = int(descriptor[0]) or 2**16, int(descriptor[1])
    if is_signed and first >= 2**15:
        first -= 2**16
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] else ">"
        entries = np.frombuffer(data[: 2 * length], f"{order}u2" if len(data) >= 2 * length else np.uint8)
    else:
        entries = np.array(data, ndmin=1)
    if len(entries) < length:
        raise DecodeRejected("a lookup table that was cut off")
    return _Table(first, entries[:length], 2 ** int(descriptor[2]) - 1)


def _numbers(item: Dataset, keyword: str) -> list[float]:
    value = item.get(keyword)
    if value is None or value == "":
        return []
    numbers = [float(number) for number in (value if isinstance(value, (list, tuple)) or _is_multi(value) else [value])]
    if not all(math.isfinite(number) for number in numbers):
        raise DecodeRejected(f"a DICOM file without a valid {keyword}")
    return numbers


def _is_multi(value: Any) -> bool:
    from pydicom.multival import MultiValue

    return isinstance(value, MultiValue)
