"""Ordinary image files (PNG, JPEG, BMP, TIFF), read by Pillow under the door's limits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medvision.data.codestreams import check_scans
from medvision.data.limits import MAX_PIXELS, check_size
from medvision.errors import DecodeRejected

# MPO, which some cameras write, is opened by the JPEG plugin: Pillow fails on it as a name of its own.
RASTER_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")

_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}


def decode_raster(file: Path | bytes, formats: tuple[str, ...]) -> np.ndarray:
    """Decode the first image of a file; see ``decode_image`` for what is returned and raised."""
    mine = tuple(name for name in formats if name in RASTER_FORMATS)
    # Pillow leaves the file open for its caller where a header is damaged: a file that is opened here is closed here.
    try:
        with (
            io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as stream,
            Image.open(stream, formats=mine) as image,
        ):
            _check_header(image)
            if image.format in {"JPEG", "MPO"}:
                stream.seek(0)
                check_scans(stream.read())
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


def _check_header(image: Image.Image) -> None:
    check_size(*image.size)
    if image.format == "TIFF" and _has_second_page(image):
        raise DecodeRejected("a TIFF of several pages; expected one image a file")


def _has_second_page(image: Image.Image) -> bool:
    # Counting them would follow a chain that may have a million.
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


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
