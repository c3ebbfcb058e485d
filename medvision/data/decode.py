"""The one door through which image files come in: guarded, and the same for training and serving.

A file is accepted by its content, not by its name. Whatever is damaged, of another format, or too large raises
DecodeRejected with a reason; nothing is repaired or guessed.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medvision.errors import DecodeRejected

# MPO, which some cameras write, is opened by the JPEG plugin: Pillow fails on it as a name of its own.
DATASET_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
# Requests come from strangers: the two formats with the most tested decoders only.
UPLOAD_FORMATS = ("PNG", "JPEG")
# The largest mammogram that we know of is 4708 x 5844 = 27.5 million pixels.
MAX_PIXELS = 40_000_000

_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}


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
    the first frame of an animation is read.

    Returns
    -------
    uint8 array (height, width) of a gray image, (height, width, 3) of a colour image in RGB.

    Raises
    ------
    DecodeRejected: not a whole, readable image in one of ``formats`` with at most MAX_PIXELS pixels.
    """
    file = source.file if isinstance(source, ImageSource) else source
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats) as image:
            _check_header(image)
            image.load()
            return _to_array(ImageOps.exif_transpose(image), _black_and_white(image))
    except DecodeRejected:
        raise
    except UnidentifiedImageError:
        raise DecodeRejected(f"not a readable image; expected one of {', '.join(formats)}") from None
    except Image.DecompressionBombError:
        raise DecodeRejected(f"more than {MAX_PIXELS:,} pixels") from None
    # A decoder on damaged input may raise anything: OSError, SyntaxError, struct.error, ValueError, MemoryError ...
    except Exception as error:
        raise DecodeRejected(_one_line(error)) from None


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


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DecodeRejected(f"{width} x {height} pixels; at most {MAX_PIXELS:,} are read")
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise DecodeRejected("a TIFF of several pages; expected one image a file")


def _black_and_white(image: Image.Image) -> tuple[int, int]:
    """Return the samples that stand for black and white where there are more than 8 bits of them."""
    # TIFF 6.0: tag 258 is BitsPerSample; tag 262, PhotometricInterpretation, is 0 for WhiteIsZero, as some X-rays are.
    tags = getattr(image, "tag_v2", {})
    brightest = 4095 if tags.get(258) == (12,) else 65535
    return (brightest, 0) if tags.get(262) == 0 else (0, brightest)


def _to_array(image: Image.Image, black_and_white: tuple[int, int]) -> np.ndarray:
    if image.mode == "F":
        raise DecodeRejected("32-bit float pixels, which have no fixed range; expected 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), *black_and_white)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        gray = image.mode in {"LA", "La", "L", "1"}
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return np.asarray(image.convert("L" if gray else "RGB"))
    return np.asarray(image.convert("L" if image.mode in {"1", "L"} else "RGB"))


def _from_16_bit(samples: np.ndarray, black: int, white: int) -> np.ndarray:
    brightest = max(black, white)
    if samples.min(initial=0) < 0 or samples.max(initial=0) > brightest:
        raise DecodeRejected(f"pixels outside 0 to {brightest:,}; expected 8 or 16 bits")
    # PNG specification, 13.12: a linear map, so that full range stays full range.
    above_black = np.abs(samples.astype(np.int32) - black)
    return ((above_black * 255 + brightest // 2) // brightest).astype(np.uint8)


def _one_line(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"damaged image ({text})"
