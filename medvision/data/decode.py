"""The one door through which image files come in: guarded, and the same for training and serving.

A file is accepted by its content, not by its name. Whatever is damaged, of another format, or too large raises
DecodeRejected with a reason; nothing is repaired or guessed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medvision.data.dicom import count_dicom_frames, decode_dicom
from medvision.data.dicom_file import looks_like_dicom
from medvision.data.nifti import count_nifti_slices, decode_nifti, looks_like_nifti
from medvision.data.raster import RASTER_FORMATS, decode_raster
from medvision.errors import DecodeRejected

DATASET_FORMATS = (*RASTER_FORMATS, "DICOM", "NIFTI")
# Requests come from strangers: the two formats with the most tested decoders only.
UPLOAD_FORMATS = ("PNG", "JPEG")

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"PK\x03\x04": "ZIP",
    b"PK\x05\x06": "ZIP",
}
# The start of a gzip file, of which the first 348 bytes of what it holds are needed.
_START_BYTES = 4096


@dataclass(frozen=True)
class ImageSource:
    """One image: its file, or the bytes of one, and which of the frames in it, 0 of an ordinary image.

    ``window``: what CT values are seen through, a preset or "CENTER,WIDTH"; "" for the file's own.
    """

    file: Path | bytes
    frame: int = 0
    window: str = ""


def decode_image(source: ImageSource | Path | bytes, formats: tuple[str, ...] = DATASET_FORMATS) -> np.ndarray:
    """Decode an image, or the only one of a file or of its bytes.

    The EXIF orientation is applied, transparency is laid over black, 16-bit samples are rescaled to 8 bits, and only
    the first frame of an animation is read. How DICOM and NIfTI values become gray levels is said in ``dicom_display``
    and ``nifti``.

    Returns
    -------
    uint8 array (height, width) of a gray image, (height, width, 3) of a colour image in RGB.

    Raises
    ------
    DecodeRejected: not a whole, readable image in one of ``formats`` with at most MAX_PIXELS pixels, no such frame in
    it, or a window for an image that has no Hounsfield units.
    """
    source = source if isinstance(source, ImageSource) else ImageSource(source)
    kind = sniff_format(source.file)
    if kind in {"DICOM", "NIFTI"} and kind in formats:
        decode = decode_dicom if kind == "DICOM" else decode_nifti
        return decode(source.file, source.frame, source.window)
    pixels = decode_raster(source.file, formats)
    if source.frame != 0:
        raise DecodeRejected(f"no frame {source.frame}; the file has one image")
    if source.window:
        raise DecodeRejected(
            f"the window {source.window} was asked for, but this image has no Hounsfield units any more; expected the "
            "DICOM or NIfTI file that it was made of"
        )
    return pixels


def sniff_format(file: Path | bytes) -> str:
    """Return the format that a file's first bytes say: one of DATASET_FORMATS, "ZIP", or "" for any other.

    Raises DecodeRejected: the file can't be opened.
    """
    start = file[:_START_BYTES] if isinstance(file, bytes) else _read_start(file)
    # First, since of a file without preamble or with one that passes for a TIFF only these say what it is.
    if looks_like_dicom(start):
        return "DICOM"
    if looks_like_nifti(start):
        return "NIFTI"
    return next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), "")


def count_frames(file: Path) -> int:
    """Return how many images a file holds: frames of a DICOM file, slices of a NIfTI file, 1 of any other.

    Raises DecodeRejected: the file is no image by its first bytes, or, of DICOM and NIfTI, by its header.
    """
    kind = sniff_format(file)
    if kind == "DICOM":
        return count_dicom_frames(file)
    if kind == "NIFTI":
        return count_nifti_slices(file)
    if kind not in DATASET_FORMATS:
        raise DecodeRejected(f"not a readable image; expected one of {', '.join(DATASET_FORMATS)}")
    return 1


def decode_file(source: ImageSource) -> np.ndarray:
    """Decode a file of a manifest; DecodeRejected names it, since it was readable when the manifest was made."""
    try:
        return decode_image(source)
    except DecodeRejected as error:
        raise DecodeRejected(
            f"{source.file!s} has changed since it was read first: {error}. Restore it or run again."
        ) from None


def fit_to_square(pixels: np.ndarray, image_size: int, channels: int) -> np.ndarray:
    """Convert to ``channels`` (1 or 3) and resize to a square with an antialiasing filter.

    Parameters
    ----------
    pixels: uint8 (height, width) or (height, width, 3).

    Returns
    -------
    uint8 (image_size, image_size, channels).
    """
    image = Image.fromarray(to_gray(pixels) if channels == 1 else pixels)
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    resized = np.asarray(image)
    if resized.ndim == 2:
        resized = resized[:, :, np.newaxis]
    return np.repeat(resized, channels, axis=2) if resized.shape[2] < channels else resized


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Return the luma (height, width) of an image, after ITU-R BT.601; a gray one is returned as it is."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))


def collapse_gray(pixels: np.ndarray) -> np.ndarray:
    """Return (height, width) for a colour image whose three channels are equal, and any other image as it is."""
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        return np.ascontiguousarray(pixels[:, :, 0])
    return pixels


def hash_pixels(pixels: np.ndarray) -> str:
    """Return the SHA-256 of decoded pixels and their shape, in hexadecimal."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def hash_file(source: ImageSource) -> str:
    """Return the hash of a file's pixels, decoded now, as its manifest has it; DecodeRejected as ``decode_file``."""
    return hash_pixels(collapse_gray(decode_file(source)))


def _read_start(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_START_BYTES)
    except OSError as error:
        raise DecodeRejected(f"can't be read ({error.strerror or type(error).__name__}): {file}") from None
