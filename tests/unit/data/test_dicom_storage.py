"""Pixels are the same however a DICOM file stores them, or the file is refused."""

import subprocess
import sys

import numpy as np
import pytest
from medical_files import describe, save, scan, write_dicom

from medvision.data.decode import ImageSource, count_frames, decode_image, sniff_format
from medvision.errors import DecodeRejected

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian", "JPEG-LS", "JPEG 2000", "RLE"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_transfer_syntaxes(syntax, dtype):
    """Without loss in the transfer syntax, each gives the picture of the plain one."""
    values = np.random.default_rng(0).integers(0, 200, (33, 47)).astype(dtype)
    assert np.array_equal(decode_image(write_dicom(values, syntax)), decode_image(write_dicom(values)))


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian", "JPEG-LS", "JPEG 2000", "RLE", "JPEG"])
def test_colour(syntax):
    """Colour comes as (rows, columns, 3) in RGB, exact where there is no loss."""
    random = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(random.integers(0, 256, (4, 5, 3), np.uint8), 8, axis=0), 8, axis=1)
    read = decode_image(write_dicom(pixels, syntax)).astype(int)
    # JPEG halves the resolution of colour: at the edges of the squares it is far off.
    assert np.abs(read - pixels).mean() < (12 if syntax == "JPEG" else 1e-9)


def test_planar_colour():
    """Colour by planes is the picture of colour by pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    dataset = describe(pixels, PlanarConfiguration=1)
    dataset.PixelData = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    assert np.array_equal(decode_image(save(dataset, EXPLICIT)), pixels)


def test_ybr():
    """YBR_FULL is turned into RGB: gray stays gray, and red is red (PS3.3 C.7.6.3.1.2)."""
    pixels = np.array([[[77, 128, 128], [76, 85, 255]]], np.uint8)
    read = decode_image(write_dicom(pixels, PhotometricInterpretation="YBR_FULL")).astype(int)
    assert np.abs(read - [[[77, 77, 77], [255, 0, 0]]]).max() <= 2


def test_16_bit_colour():
    """16-bit colour is mapped linearly."""
    pixels = np.array([[[0, 32_768, 65_535]]], np.uint16)
    assert decode_image(write_dicom(pixels)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(bits):
    """A palette gives its colours; indices below or above it have its first or last."""
    entries = {name: np.array(column, f"u{bits // 8}") * (257 if bits == 16 else 1) for name, column in
               {"Red": [0, 250, 100, 255], "Green": [5, 0, 120, 255], "Blue": [9, 3, 50, 255]}.items()}  # fmt: skip
    attributes = {f"{name}PaletteColorLookupTableDescriptor": [4, 2, bits] for name in entries}
    attributes |= {f"{name}PaletteColorLookupTableData": column.tobytes() for name, column in entries.items()}
    content = write_dicom(
        np.array([[0, 2, 3, 4, 5, 200]], np.uint8), PhotometricInterpretation="PALETTE COLOR", **attributes
    )
    colours = [[0, 5, 9], [250, 0, 3], [100, 120, 50], [255, 255, 255]]
    assert decode_image(content).tolist() == [[colours[index] for index in (0, 0, 1, 2, 3, 3)]]


@pytest.mark.parametrize("syntax", ["explicit", "big endian", "RLE", "JPEG 2000", "JPEG-LS"])
def test_each_frame(syntax, tmp_path):
    """Of a file of several frames each can be had, and the number of them; one too many is refused."""
    frames = np.random.default_rng(0).integers(0, 256, (5, 39, 47), np.uint8)
    path = tmp_path / "frames"
    path.write_bytes(write_dicom(frames, syntax))
    assert count_frames(path) == 5
    for number in (4, 0, 3, 1, 2):
        assert np.array_equal(decode_image(ImageSource(path, number)), frames[number])
    for number in (5, -1):
        with pytest.raises(DecodeRejected, match="the file has 5"):
            decode_image(ImageSource(path, number))


def test_one_frame_is_read_of_many(tmp_path):
    """A frame of a large file is read without the others."""
    path = tmp_path / "large"
    path.write_bytes(write_dicom(np.zeros((2000, 256, 256), np.uint8)))
    script = f"""
import resource; from pathlib import Path; from medvision.data.decode import *
decode_image(ImageSource(Path({str(path)!r}), 0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_image(ImageSource(Path({str(path)!r}), 1999))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(shown) < 20_000


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
def test_without_preamble(syntax):
    """A file without preamble and file meta, as old archives have them, is read if it plainly is one."""
    values = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    content = write_dicom(values, syntax, preamble=False)
    assert sniff_format(content) == "DICOM"
    assert np.array_equal(decode_image(content), values)


@pytest.mark.parametrize("syntax", ["explicit", "JPEG 2000", "RLE"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_truncated_is_refused(syntax, kept):
    """A file that was cut off anywhere is refused."""
    whole = write_dicom(np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16), syntax)
    with pytest.raises(DecodeRejected):
        decode_image(whole[: int(kept * len(whole))])


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Modality": "SEG"}, "segmentation"),
        ({"Modality": "RTDOSE"}, "dose grid"),
        ({"BitsAllocated": 1, "BitsStored": 1}, "mask"),
        ({"BitsAllocated": 12, "BitsStored": 12}, "expected 8, 16 or 32"),
        ({"BitsStored": 20}, "expected 8, 16 or 32"),
        ({"PhotometricInterpretation": "HSV"}, "photometric"),
        ({"SamplesPerPixel": 4}, "4 samples"),
        ({"Rows": 0}, "0 pixels"),
        ({"NumberOfFrames": 0}, "0 frames"),
        ({"Rows": 9000, "Columns": 9000}, "at most"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "slope of 0"),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "VOI LUT function"),
    ],
)
def test_what_is_no_image_is_refused(attributes, reason):
    """A mask, a dose, and whatever can't be shown as it is meant are refused with a reason."""
    with pytest.raises(DecodeRejected, match=reason):
        decode_image(write_dicom(np.arange(64, dtype=np.uint16).reshape(8, 8), **attributes))


def test_uploads_are_not_dicom():
    """A request may not bring DICOM."""
    with pytest.raises(DecodeRejected, match="expected one of PNG, JPEG"):
        decode_image(scan(), ("PNG", "JPEG"))


def test_bits_in_another_place():
    """Values that do not lie in the lowest bits are refused: the wrong ones would be taken."""
    dataset = describe(np.arange(64, dtype=np.uint16).reshape(8, 8) * 16, BitsStored=12)
    dataset.HighBit = 15
    with pytest.raises(DecodeRejected, match="high bit of 15"):
        decode_image(save(dataset, EXPLICIT))
