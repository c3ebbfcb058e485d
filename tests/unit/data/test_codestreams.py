"""What a compressed frame says of itself is held against the header before it is decoded."""

import struct

import numpy as np
import pytest
from medical_files import write_dicom

from medvision.data.codestreams import read_frame_size
from medvision.data.decode import decode_image
from medvision.errors import DecodeRejected

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56), np.uint8)
# Where the codestream begins, and the place of its rows and columns after that, each in as many bytes.
SIZES = {"JPEG": (b"\xff\xc0", 5, ">HH"), "JPEG-LS": (b"\xff\xf7", 5, ">HH")}


def changed(syntax, change):
    content = bytearray(write_dicom(PIXELS, syntax))
    change(content)
    return bytes(content)


@pytest.mark.parametrize("syntax", SIZES)
@pytest.mark.parametrize("size", [(39, 56), (41, 56), (40, 57), (6000, 6000)])
def test_other_size_than_the_header(syntax, size):
    """A frame of another size than the header says is refused, be it larger or smaller."""
    marker, place, form = SIZES[syntax]
    content = changed(syntax, lambda content: struct.pack_into(form, content, content.index(marker) + place, *size))
    with pytest.raises(DecodeRejected, match=f"frame of {size[1]} x {size[0]} x 1, where the header says 56 x 40 x 1"):
        decode_image(content)


@pytest.mark.parametrize("size", [(39, 56), (6000, 6000)])
def test_other_size_than_the_header_in_jpeg_2000(size):
    """A JPEG 2000 frame too."""

    def change(content):
        start = content.index(b"\xff\x4f\xff\x51")
        for place in (8, 24):
            struct.pack_into(">II", content, start + place, size[1], size[0])

    with pytest.raises(DecodeRejected, match=f"frame of {size[1]} x {size[0]} x 1"):
        decode_image(changed("JPEG 2000", change))


def test_jpeg_2000_that_was_cut_off():
    """A codestream without its end is refused, though the file that holds it is whole: no gray lower half."""

    def change(content):
        end = content.rindex(b"\xff\xd9")
        content[end : end + 2] = b"\0\0"

    with pytest.raises(DecodeRejected, match="JPEG 2000 frame that was cut off"):
        decode_image(changed("JPEG 2000", change))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\xff\xff", b"\xff\x4f\xff\x51\0", b"RIFF" * 9])
def test_what_is_no_codestream(content):
    """What is no codestream, or ends before its size, is refused."""
    with pytest.raises(DecodeRejected, match=r"compressed frame|JPEG 2000 frame"):
        read_frame_size(content)
