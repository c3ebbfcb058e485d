"""Every image is read as it is meant, or refused with a reason: never a crash, a hang, or a wrong picture."""

import io
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from medical_files import write_dicom, write_nifti
from PIL import Image

from medvision.data.decode import (
    UPLOAD_FORMATS,
    ImageSource,
    collapse_gray,
    count_frames,
    decode_image,
    fit_to_square,
    hash_pixels,
    sniff_format,
)
from medvision.errors import DecodeRejected

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

FORMATS = ["png", "jpg", "bmp", "tif"]


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("first", ["PNG", "JPEG", "BMP", "TIFF"])
def test_formats_in_a_fresh_process(first, tmp_path):
    """Each format is read also by a process that has read no other before."""
    path = tmp_path / "image"
    path.write_bytes(encode(Image.new("L", (5, 4), 77), first))
    script = f"from pathlib import Path; from medvision.data.decode import *; print(decode_image(Path({str(path)!r})))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "[77 77 77 77 77]" in shown


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_reads_what_was_written(suffix, shape, noise, write_image, tmp_path):
    """Gray comes as (height, width), colour as (height, width, 3), with the pixels that were written."""
    pixels = noise(0, shape)
    read = decode_image(write_image(tmp_path / f"image.{suffix}", pixels))
    assert read.shape == shape and read.dtype == np.uint8
    if suffix != "jpg":
        assert np.array_equal(read, pixels)


def test_bytes_and_file_give_the_same(noise, write_image, tmp_path):
    """A request's bytes and a dataset's file go through the same door."""
    path = write_image(tmp_path / "image.jpg", noise(0, (20, 30, 3)))
    assert np.array_equal(decode_image(path), decode_image(path.read_bytes()))


# What of odd_valid is refused, and why; everything else is a picture.
REFUSED = {
    r".*\.(gif|webp|pgm|jp2)": "expected one of PNG, JPEG, BMP, TIFF",
    r"multipage.*|g4-multi.*|compression.*|no_rows_per_strip.*|total-pages-zero.*|.*_overviews.*": "several pages",
    r"10ct_32bit_128\.tiff": "32-bit float",
}


def test_odd_but_valid_images(real_data):
    """Every odd image is read as uint8 of its own size, or refused for the reason in the table, within 2 s."""
    for path in sorted((real_data("bad-images") / "odd_valid").iterdir()):
        reason = next((reason for pattern, reason in REFUSED.items() if re.fullmatch(pattern, path.name)), None)
        start = time.process_time()
        if reason is not None:
            with pytest.raises(DecodeRejected, match=reason):
                decode_image(path)
        else:
            pixels = decode_image(path)
            with Image.open(path) as image:
                assert sorted(pixels.shape[:2]) == sorted(image.size), path
            assert pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2:] == (3,)), path
        assert time.process_time() - start < 2, path


def test_odd_bitmaps_are_those_of_opencv(real_data):
    """BMP files with odd headers give the picture that OpenCV reads."""
    import cv2

    paths = sorted((real_data("bad-images") / "odd_valid").glob("bmp__*.bmp"))
    assert paths
    for path in paths:
        assert np.array_equal(decode_image(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)), path


def test_bad_images_are_refused(real_data):
    """Bombs, fuzz, truncated and foreign files are refused, each within 2 s."""
    for path in sorted((real_data("bad-images") / "reject").iterdir()):
        start = time.process_time()
        with pytest.raises(DecodeRejected):
            decode_image(path)
        assert time.process_time() - start < 2, path


def test_damaged_files_never_crash(noise):
    """Whatever byte of a file is damaged, it is read or refused."""
    random = np.random.default_rng(0)
    image = Image.fromarray(noise(0, (40, 40, 3)))
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        whole = encode(image, kind)
        for _ in range(100):
            damaged = bytearray(whole)
            for place in random.integers(0, min(len(whole), 400), 3):
                damaged[place] = random.integers(256)
            try:
                pixels = decode_image(bytes(damaged))
            except DecodeRejected:
                continue
            assert pixels.dtype == np.uint8


def test_exif_orientations_give_one_picture(real_data):
    """A photo in orientations 0 to 8 is the same picture as in orientation 1, up to JPEG's rounding."""
    paths = sorted(real_data("exif-orientation").glob("*_[0-8].jpg"))
    assert len(paths) == 9
    upright = decode_image(next(path for path in paths if path.stem.endswith("_1"))).astype(int)
    for path in paths:
        picture = decode_image(path).astype(int)
        assert picture.shape == upright.shape, path
        # The nearest wrong orientation is 88 away.
        assert np.abs(picture - upright).mean() < 4, path


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_exact(orientation, kind, noise):
    """Without loss in the format, every orientation gives exactly the picture of EXIF's definition."""
    upright = noise(0, (6, 9))
    # What has to be stored so that the viewer, who undoes it, sees the upright picture.
    stored = {
        2: np.fliplr(upright), 3: np.rot90(upright, 2), 4: np.flipud(upright), 5: upright.T,
        6: np.rot90(upright, 1), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, 3),
    }.get(orientation, upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    assert np.array_equal(decode_image(content), upright)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_range(kind):
    """16-bit samples are mapped linearly: 0 to 0, 65,535 to 255, the middle to the middle."""
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    read = decode_image(encode(Image.fromarray(samples), kind)).astype(int)
    assert read[0, 0] == 0 and read[-1, -1] == 255
    assert np.abs(read - samples / 257).max() <= 0.5


def test_16_bit_white_is_zero():
    """A 16-bit TIFF that says that white is zero is turned over, as one of 8 bits is."""
    samples = np.array([[0, 65535, 257]], dtype=np.uint16)
    content = encode(Image.fromarray(samples), "TIFF", tiffinfo={262: 0})
    assert decode_image(content).tolist() == [[255, 0, 254]]


def test_12_bit_file(real_data):
    """A file of 12 bits a sample is mapped from its own range."""
    path = real_data("bad-images") / "odd_valid" / "12bit.cropped.tif"
    with Image.open(path) as image:
        samples = np.asarray(image)
    assert np.abs(decode_image(path) - samples * 255 / 4095).max() <= 0.5


def test_float_and_32_bit_samples_are_refused():
    """Samples without a fixed range are refused, not clipped."""
    with pytest.raises(DecodeRejected, match="float"):
        decode_image(encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))
    with pytest.raises(DecodeRejected, match="65,535"):
        decode_image(encode(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"))


def test_bomb_is_refused_by_its_header(tmp_path):
    """13,300 x 13,300 pixels in a file of some kB are refused in 100 ms without memory being taken."""
    path = tmp_path / "bomb.png"
    Image.new("1", (13_300, 13_300)).save(path)
    script = f"""
import resource, time, warnings; from pathlib import Path; from medvision.data.decode import decode_image
warnings.simplefilter("ignore")
decode_image(Path({str(tmp_path / "small.png")!r}))
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try: decode_image(Path({str(path)!r}))
except Exception as error: print(type(error).__name__, error)
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    Image.new("1", (8, 8)).save(tmp_path / "small.png")
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    refusal, figures = shown.splitlines()
    seconds, kib = map(float, figures.split())
    assert refusal == "DecodeRejected 13300 x 13300 pixels; at most 40,000,000 are read"
    assert seconds < 0.1
    assert kib < 5_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7, 0.97])
def test_truncated_is_refused(kind, kept, noise):
    """A file that was cut off is refused: no gray lower half."""
    whole = encode(Image.fromarray(noise(0, (200, 200, 3))), kind)
    with pytest.raises(DecodeRejected):
        decode_image(whole[: int(kept * len(whole))])


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "JPEG"])
def test_content_counts_not_the_name(kind, noise, tmp_path):
    """An allowed format under the name of another is read."""
    path = tmp_path / "image.png"
    path.write_bytes(encode(Image.fromarray(noise(0)), kind, **({"quality": 100} if kind == "JPEG" else {})))
    assert np.abs(decode_image(path).astype(int) - noise(0)).max() <= 3


@pytest.mark.parametrize("name", ["scan.jfif", "scan.JPEG", "scan", "scan.dcm", "scan.PNG.gz", "scan.txt"])
def test_any_name_is_read(name, noise, tmp_path):
    """An image is read under any name, a DICOM file and a packed NIfTI file too."""
    path = tmp_path / name
    for content in (
        encode(Image.fromarray(noise(0)), "PNG"),
        write_dicom(noise(0)),
        write_nifti(np.flip(noise(0)).T[:, :, None], packed=True, cal_min=0, cal_max=255),
    ):
        path.write_bytes(content)
        assert np.array_equal(decode_image(path), noise(0))
        assert count_frames(path) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
def test_format_by_content(kind, noise, tmp_path):
    """The format is what the first bytes say, of a file and of its bytes."""
    content = encode(Image.fromarray(noise(0)), kind)
    (tmp_path / "image.dcm").write_bytes(content)
    assert sniff_format(content) == sniff_format(tmp_path / "image.dcm") == kind


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04" + bytes(200), "ZIP"),
        (b"", ""),
        (b"Patient: see above.\n" * 20, ""),
        (b"\x1f\x8b" + bytes(400), ""),
        (b"II*\0" + bytes(124) + b"DICM" + bytes(100), "DICOM"),
        (b"\x08\0" * 200, ""),
        (bytes(400), ""),
    ],
)
def test_other_formats(content, expected):
    """A zip is told from what is unknown; DICOM whose preamble passes for a TIFF, as of slides, is DICOM."""
    assert sniff_format(content) == expected


def test_frames_of_what_is_no_image(tmp_path):
    """What is no image has no frames: it is refused."""
    (tmp_path / "notes.png").write_bytes(b"Patient: see above.\n" * 20)
    with pytest.raises(DecodeRejected, match="expected one of"):
        count_frames(tmp_path / "notes.png")


def test_second_frame_of_an_ordinary_image(noise, write_image, tmp_path):
    """An ordinary image has no second frame."""
    with pytest.raises(DecodeRejected, match="the file has one image"):
        decode_image(ImageSource(write_image(tmp_path / "image.png", noise(0)), 1))


def test_progressive_jpeg(noise):
    """A progressive JPEG with the scans that writers make is read."""
    image = Image.fromarray(noise(0, (400, 500, 3)))
    assert np.array_equal(
        decode_image(encode(image, "JPEG", progressive=True)), decode_image(encode(image, "JPEG", progressive=False))
    )


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PPM", "ICO"])
def test_other_formats_are_refused_under_any_name(kind, noise, tmp_path):
    """A format that is not on the list is refused, also when it is named .png; the message names those that are."""
    path = tmp_path / "image.png"
    path.write_bytes(encode(Image.fromarray(noise(0)), kind))
    with pytest.raises(DecodeRejected, match="expected one of PNG, JPEG, BMP, TIFF"):
        decode_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"Patient: see above.\n", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"]
)
def test_what_is_no_image_is_refused(content, tmp_path):
    """An empty file, a text and a bare signature are refused under the name of an image."""
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(DecodeRejected):
        decode_image(path)


def test_missing_file_is_refused(tmp_path):
    """A file that has vanished is refused with its name."""
    with pytest.raises(DecodeRejected, match=r"gone\.png"):
        decode_image(tmp_path / "gone.png")


def test_uploads_are_png_and_jpeg_only(noise):
    """A request may not bring TIFF or BMP."""
    image = Image.fromarray(noise(0))
    for kind in ("PNG", "JPEG"):
        assert decode_image(encode(image, kind), UPLOAD_FORMATS).shape == (24, 32)
    for kind in ("TIFF", "BMP"):
        with pytest.raises(DecodeRejected, match="expected one of PNG, JPEG"):
            decode_image(encode(image, kind), UPLOAD_FORMATS)


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("RGBA", (200, 100, 50, 255), [200, 100, 50]),
        ("RGBA", (200, 100, 50, 0), [0, 0, 0]),
        ("RGBA", (200, 100, 50, 51), [40, 20, 10]),
        ("LA", (200, 255), 200),
        ("LA", (200, 0), 0),
        ("LA", (200, 51), 40),
    ],
)
def test_transparency_over_black(mode, pixel, expected):
    """What is transparent is black, and a half-transparent pixel is dimmed by its share."""
    pixels = decode_image(encode(Image.new(mode, (2, 2), pixel), "PNG"))
    assert np.abs(pixels[0, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("mode", "colour", "shape"), [("L", 9, (2, 2)), ("RGB", (9, 8, 7), (2, 2, 3)), ("1", 1, (2, 2))]
)
def test_transparent_colour_is_black(mode, colour, shape):
    """The one colour that a PNG declares transparent is black, and gray stays gray."""
    pixels = decode_image(encode(Image.new(mode, (2, 2), colour), "PNG", transparency=colour))
    assert pixels.shape == shape and not pixels.any()


def test_palette():
    """Palette indices come as their colours, transparent ones as black."""
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 7, 7])
    image.putdata([0, 1, 2])
    assert decode_image(encode(image, "PNG")).tolist() == [[[10, 20, 30], [200, 100, 50], [7, 7, 7]]]
    assert decode_image(encode(image, "PNG", transparency=1)).tolist() == [[[10, 20, 30], [0, 0, 0], [7, 7, 7]]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    """CMYK comes as RGB: no ink is white, full cyan has no red."""
    white, cyan = (decode_image(encode(Image.new("CMYK", (8, 8), ink), kind)) for ink in [(0,) * 4, (255, 0, 0, 0)])
    assert (white > 250).all()
    assert (cyan[..., 0] < 5).all() and (cyan[..., 1:] > 250).all()


def test_one_bit():
    """One-bit images come as 0 and 255."""
    image = Image.fromarray(np.eye(9, dtype=bool))
    assert np.array_equal(decode_image(encode(image, "PNG")), 255 * np.eye(9))


def test_first_frame_of_an_animation(noise):
    """Of an animation the first frame is read; a TIFF of several pages is refused."""
    frames = [Image.fromarray(noise(seed)) for seed in range(3)]
    animated = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode_image(animated), noise(0))
    with pytest.raises(DecodeRejected, match="several pages"):
        decode_image(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [7, 24, 96])
def test_gray_stored_as_colour_gives_the_same_square(channels, size, noise):
    """A gray image that was stored as RGB gives exactly the square of the gray one."""
    gray = noise(0, (61, 47))
    colour = np.repeat(gray[:, :, None], 3, axis=2)
    assert np.array_equal(fit_to_square(gray, size, channels), fit_to_square(colour, size, channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(5, 900), (900, 5), (32, 32), (1, 1), (33, 31, 3)])
def test_fit_to_square_shape(channels, shape, noise):
    """Any image becomes a uint8 square of the asked channels."""
    square = fit_to_square(noise(0, shape), 32, channels)
    assert square.shape == (32, 32, channels) and square.dtype == np.uint8


def test_fit_to_square_keeps_what_fits(noise):
    """An image that has the size already is not touched."""
    pixels = noise(0, (32, 32, 3))
    assert np.array_equal(fit_to_square(pixels, 32, 3), pixels)


def test_fit_to_square_is_antialiased():
    """Shrinking a fine checkerboard gives gray, not a moiré of black and white."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(fit_to_square(board, 32, 1).astype(int) - 127).max() <= 8


def test_collapse_gray(noise):
    """Only a colour image whose channels are equal loses two of them."""
    gray, colour = noise(0), noise(0, (24, 32, 3))
    assert np.array_equal(collapse_gray(np.repeat(gray[:, :, None], 3, axis=2)), gray)
    assert collapse_gray(colour).shape == colour.shape
    assert collapse_gray(gray).shape == gray.shape


def test_pixel_hash_sees_pixels_and_shape():
    """The hash is that of the pixels and their shape: not of the memory layout."""
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert hash_pixels(pixels) == hash_pixels(np.asfortranarray(pixels))
    assert len({hash_pixels(pixels), hash_pixels(pixels.reshape(4, 3)), hash_pixels(pixels + 1)}) == 3


def test_largest_image():
    """40 million pixels are read, one row more is refused."""
    assert decode_image(encode(Image.new("1", (8000, 5000)), "PNG")).shape == (5000, 8000)
    with pytest.raises(DecodeRejected, match="40,000,000"):
        decode_image(encode(Image.new("1", (8000, 5001)), "PNG"))
