"""NIfTI volumes (.nii, .nii.gz): slices as radiologists look at them.

The slices of a volume are its axial ones, from the feet to the head: nose up, the patient's right on the left side of
the picture, whatever the order of the voxels in the file. Frame ``t * n_slices + z`` of a file with several volumes is
slice z of volume t.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from medvision.data.inflating import Inflated, Plain, inflate_start, unpacked
from medvision.data.limits import check_size, refusing_damage
from medvision.data.windowing import between, linear, to_uint8
from medvision.errors import DecodeRejected
from medvision.windows import parse_window

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

# 2,000 slices of 512 x 512 in 16 bits.
_MAX_VOLUME_BYTES = 2**30
# An image without noise, as that of a mask, may shrink to a thousandth; a large one that does holds nothing to see.
_MAX_RATIO, _ALWAYS_INFLATED = 100, 16 * 2**20
# Of the header of NIfTI-1 and of NIfTI-2.
_FIRST_BYTES, _SECOND_BYTES = 348, 540
_MAX_FRAMES = 100_000
# Enough voxels to know a percentile to a thousandth of the range, and few enough to sort in a second.
_SAMPLED_VOXELS = 4_000_000
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class _Volume:
    """Stored voxels (x, y, z, t), from the patient's right to left, front to back, feet to head.

    A value is stored * slope + intercept. ``black`` and ``white`` are the values that are shown so where no window is
    asked for.
    """

    stored: np.ndarray
    slope: float
    intercept: float
    black: float
    white: float


@dataclass(frozen=True)
class _Plan:
    """What a header says: how voxels are laid out, and where they begin."""

    header: Nifti1Header
    shape: tuple[int, int, int, int]
    orientation: np.ndarray
    offset: int
    size_bytes: int

    @property
    def n_slices(self) -> int:
        axis = int(np.flatnonzero(self.orientation[:, 0] == 2)[0])
        return self.shape[axis]


def looks_like_nifti(start: bytes) -> bool:
    """Tell whether a file that starts with these bytes (at least 348) is NIfTI, unpacked or in gzip."""
    if start.startswith(b"\x1f\x8b"):
        start = inflate_start(start)
    is_first = start[:4] in {b"\x5c\x01\0\0", b"\0\0\x01\x5c"} and start[344:348] in {b"n+1\0", b"ni1\0"}
    is_second = start[:4] in {b"\x1c\x02\0\0", b"\0\0\x02\x1c"} and start[4:12] in {
        b"n+2\0\r\n\x1a\n",
        b"ni2\0\r\n\x1a\n",
    }
    return is_first or is_second


def decode_nifti(file: Path | bytes, frame: int = 0, window: str = "") -> np.ndarray:
    """Decode one slice to uint8 (height, width).

    Through ``window`` if it is given, else from ``cal_min`` to ``cal_max`` of the header, or, where it has none, from
    the 0.5th to the 99.5th percentile of the whole volume, so that its slices stay comparable. NIfTI does not say what
    its values are: with a window they are taken for Hounsfield units.

    Raises DecodeRejected: not a whole NIfTI file of one image, or larger than what is read.
    """
    with refusing_damage("NIfTI"):
        volume = _load_bytes(file) if isinstance(file, bytes) else _load_file(file, *_identify(file))
        n_slices = volume.stored.shape[2]
        if not 0 <= frame < n_slices * volume.stored.shape[3]:
            raise DecodeRejected(f"no slice {frame}; the file has {n_slices * volume.stored.shape[3]}, from 0")
        stored = volume.stored[:, :, frame % n_slices, frame // n_slices]
        values = np.nan_to_num(stored.astype(np.float64) * volume.slope + volume.intercept, nan=volume.black)
        fractions = linear(values, *parse_window(window)) if window else between(values, volume.black, volume.white)
        return np.ascontiguousarray(to_uint8(fractions).T)


def count_nifti_slices(file: Path) -> int:
    """Return how many slices a file has in all of its volumes, by its header; DecodeRejected as ``decode_nifti``."""
    with refusing_damage("NIfTI"), file.open("rb") as stream:
        plan = _read_plan(unpacked(stream))
        return plan.n_slices * plan.shape[3]


def _identify(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


# The slices of a volume come one after the other: the last one is kept, or each would unpack the whole file again.
@lru_cache(maxsize=1)
def _load_file(file: Path, modified_ns: int, size_bytes: int) -> _Volume:
    with file.open("rb") as stream:
        return _load(stream, size_bytes)


def _load_bytes(content: bytes) -> _Volume:
    return _load(io.BytesIO(content), len(content))


def _load(stream: BinaryIO, size_bytes: int) -> _Volume:
    source = unpacked(stream)
    plan = _read_plan(source)
    if isinstance(source, Inflated):
        _check_ratio(plan, size_bytes)
    elif plan.offset + plan.size_bytes > size_bytes:
        raise DecodeRejected(
            f"a NIfTI file that was cut off: expected {plan.offset + plan.size_bytes:,} bytes, found {size_bytes:,}"
        )
    source.skip_to(plan.offset)
    content = source.read(plan.size_bytes)
    source.check_end()
    if len(content) < plan.size_bytes:
        raise DecodeRejected("a NIfTI file that was cut off")
    return _arrange(plan, content)


def _check_ratio(plan: _Plan, size_bytes: int) -> None:
    if plan.size_bytes > max(_ALWAYS_INFLATED, _MAX_RATIO * size_bytes):
        raise DecodeRejected(
            f"a gzip file of {size_bytes:,} bytes for {plan.size_bytes:,} bytes of voxels: more than {_MAX_RATIO} to 1"
        )


def _read_plan(source: Plain | Inflated) -> _Plan:
    import nibabel

    start = bytes(source.read(_FIRST_BYTES))
    if not looks_like_nifti(start):
        raise DecodeRejected("not a NIfTI file")
    if b"ni" in {start[4:6], start[344:346]}:
        raise DecodeRejected("a NIfTI header whose voxels are in a second file (.img); expected one .nii or .nii.gz")
    is_second = start[4:7] == b"n+2"
    if is_second:
        start += source.read(_SECOND_BYTES - _FIRST_BYTES)
    # A damaged header is refused, not mended: nibabel's own check would print what it mends.
    header = (nibabel.Nifti2Header if is_second else nibabel.Nifti1Header)(start, check=False)
    shape = _read_shape(header)
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DecodeRejected("NIfTI voxels that are complex numbers or colours; expected plain numbers")
    size_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size_bytes > _MAX_VOLUME_BYTES:
        raise DecodeRejected(f"a NIfTI file of {size_bytes:,} bytes of voxels; at most {_MAX_VOLUME_BYTES:,} are read")
    orientation = nibabel.orientations.io_orientation(header.get_best_affine())
    if not np.isfinite(orientation).all():
        raise DecodeRejected("a NIfTI file that does not say how its voxels lie in the patient")
    plan = _Plan(header, shape, orientation, _read_offset(header, len(start)), size_bytes)
    if plan.n_slices * shape[3] > _MAX_FRAMES:
        raise DecodeRejected(f"more than {_MAX_FRAMES:,} slices")
    return plan


def _read_shape(header: Nifti1Header) -> tuple[int, int, int, int]:
    n_dimensions = int(header["dim"][0])
    shape = [int(size) for size in header["dim"][1 : n_dimensions + 1]] if 1 <= n_dimensions <= 7 else []
    if len(shape) < 2 or any(size != 1 for size in shape[4:]) or min(shape) < 1:
        raise DecodeRejected("NIfTI dimensions that are not those of an image; expected 2 to 4 of at least 1")
    width, height, depth, volumes = [*shape, 1, 1][:4]
    for pair in ((width, height), (width, depth), (height, depth)):
        check_size(*pair)
    return width, height, depth, volumes


def _read_offset(header: Nifti1Header, header_bytes: int) -> int:
    # Between header and voxels there may be extensions; some MB of them are no image any more.
    offset = float(header["vox_offset"])
    if not header_bytes <= offset <= 2**24:
        raise DecodeRejected("a NIfTI file that does not say where its voxels begin")
    return int(offset)


def _arrange(plan: _Plan, content: bytes | bytearray) -> _Volume:
    from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

    voxels = np.frombuffer(content, plan.header.get_data_dtype())
    slope, intercept = _read_scaling(plan.header)
    black, white = _find_range(voxels, slope, intercept, plan.header)
    # Column 0 is the patient's right, row 0 the front.
    turn = ornt_transform(plan.orientation, axcodes2ornt(("L", "P", "S")))
    return _Volume(apply_orientation(voxels.reshape(plan.shape, order="F"), turn), slope, intercept, black, white)


def _read_scaling(header: Nifti1Header) -> tuple[float, float]:
    # NIfTI-1 standard: a slope of 0 says that values are stored as they are.
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if np.isfinite(intercept) else 0.0


def _find_range(voxels: np.ndarray, slope: float, intercept: float, header: Nifti1Header) -> tuple[float, float]:
    black, white = float(header["cal_min"]), float(header["cal_max"])
    if np.isfinite([black, white]).all() and white > black:
        return black, white
    # An odd step, so that it does not fall on the same few columns of each row.
    values = voxels[:: -(-voxels.size // _SAMPLED_VOXELS) | 1].astype(np.float64) * slope + intercept
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise DecodeRejected("NIfTI voxels none of which is a number")
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)
