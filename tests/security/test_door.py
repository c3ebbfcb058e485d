"""What must not come through the door: each bomb is refused at once, in memory that stays flat."""

import gzip
import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from medical_files import deflate_zeros, dicom_start, element, encapsulated, image_elements, write_dicom, write_nifti
from PIL import Image

SMALL = np.arange(4096, dtype=np.uint16).reshape(64, 64)

# Decoders are warm when it is measured.
CHILD = """
import json, os, resource, sys, time, warnings
from pathlib import Path
from medvision.data.decode import decode_image
from medvision.errors import DecodeRejected
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
for path in sorted((folder / "sound").iterdir()):
    decode_image(path)

def attempt(path):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        said = f"read {decode_image(path).shape}"
    except DecodeRejected as error:
        said = str(error)
    seconds = time.process_time() - start
    return said, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

# Each in a process of its own: the highest mark of a process never goes down again.
for path in sorted((folder / "bombs").iterdir()):
    child = os.fork()
    if child == 0:
        (folder / "said" / path.name).write_text(json.dumps(attempt(path)))
        os._exit(0)
    os.waitpid(child, 0)
"""


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *, interlaced):
    """A PNG of black pixels, one bit each, whose data are whole."""
    rows = zlib.compress(b"\0" * (height * (width // 8 + 1)), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_of_text(size_bytes):
    """A small PNG with a compressed text of any size in it."""
    text = b"Comment\0\0" + zlib.compress(b" " * size_bytes, 9)
    whole = png(8, 8, interlaced=0)
    return whole[:33] + chunk(b"zTXt", text) + whole[33:]


def encode(kind, **options):
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 77).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(width, height):
    """A JPEG whose header says another size than its data have."""
    content = bytearray(encode("JPEG"))
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, height, width)
    return bytes(content)


def bmp(width, height):
    content = bytearray(encode("BMP"))
    struct.pack_into("<ii", content, 18, width, height)
    return bytes(content)


def tiff(width, height):
    content = bytearray(encode("TIFF"))
    count = struct.unpack_from("<H", content, struct.unpack_from("<I", content, 4)[0])[0]
    for place in range(struct.unpack_from("<I", content, 4)[0] + 2, len(content), 12)[:count]:
        tag = struct.unpack_from("<H", content, place)[0]
        if tag in {256, 257}:
            struct.pack_into("<HII", content, place + 2, 4, 1, width if tag == 256 else height)
    return bytes(content)


def jpeg_of_scans():
    """A progressive JPEG of 36 million pixels, whose last scan comes a thousand times."""
    buffer = io.BytesIO()
    Image.new("L", (6000, 6000), 77).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 1000 + b"\xff\xd9"


def tiff_of_pages():
    """A TIFF of 20,000 pages, which take four seconds to be counted."""
    content = encode("TIFF")
    first = struct.unpack_from("<I", content, 4)[0]
    link = first + 2 + 12 * struct.unpack_from("<H", content, first)[0]
    end, page = len(content), content[first:link]
    pages = [page + struct.pack("<I", end + (len(page) + 4) * n) for n in range(1, 20_000)]
    return content[:link] + struct.pack("<I", end) + content[link + 4 :] + b"".join(pages) + page + bytes(4)


def jpeg_2000(change):
    """A DICOM file whose JPEG 2000 codestream was changed in place."""
    content = bytearray(write_dicom(SMALL, "JPEG 2000"))
    change(content, content.index(b"\xff\x4f\xff\x51"))
    return bytes(content)


def set_size(content, start):
    struct.pack_into(">II", content, start + 8, 60_000, 60_000)
    struct.pack_into(">II", content, start + 24, 60_000, 60_000)


def set_tiles(content, start):
    struct.pack_into(">II", content, start + 8, 65, 64)
    struct.pack_into(">II", content, start + 24, 1, 1)


def set_layers(content, start):
    struct.pack_into(">H", content, content.index(b"\xff\x52", start) + 6, 65_535)
    struct.pack_into(">II", content, start + 24, 8, 8)


def jpeg_ls(rows, columns):
    content = bytearray(write_dicom(SMALL, "JPEG-LS"))
    struct.pack_into(">HH", content, content.index(b"\xff\xf7") + 5, rows, columns)
    return bytes(content)


def nested_sequences(depth):
    item = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return dicom_start() + item * depth


def many_elements(count):
    return dicom_start() + b"".join(struct.pack("<HH2sH", 9, n % 65536, b"CS", 0) for n in range(count))


def nifti_bomb(shape, n_zeros=2**26):
    """A gzip NIfTI file of zeros, not as many as the header says."""
    start = bytearray(write_nifti(np.zeros((1, 1, 1), np.int16))[:352])
    struct.pack_into("<8h", start, 40, 3, *shape, 1, 1, 1, 1)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(start))] + [packer.compress(b"\0" * 2**20) for _ in range(n_zeros // 2**20)]
    return b"".join(parts) + packer.flush()


def palette_bomb():
    """Palette segments that refer to each other (PS3.3 C.7.9.2): 60 kB that stand for gigabytes."""
    segments = struct.pack("<HHH", 1, 65_535, 65_535) * 10_000
    attributes = {f"Segmented{name}PaletteColorLookupTableData": segments for name in ("Red", "Green", "Blue")}
    attributes |= {f"{name}PaletteColorLookupTableDescriptor": [0, 0, 16] for name in ("Red", "Green", "Blue")}
    return write_dicom(SMALL, PhotometricInterpretation="PALETTE COLOR", **attributes)


def deflated_dicom():
    return dicom_start("deflated") + deflate_zeros(2**28)


def run_length_bomb():
    """Runs of 128 for a frame of one pixel."""
    segments = struct.pack("<16I", 2, 64, 2**20, *[0] * 13) + b"\x81\0" * 2**20
    return dicom_start("RLE") + image_elements(1, 1) + encapsulated(segments)


BOMBS = {
    "png": lambda: png(13_300, 13_300, interlaced=0),
    "png-interlaced": lambda: png(13_300, 13_300, interlaced=1),
    "png-text": lambda: png_of_text(2**27),
    "jpeg": lambda: jpeg(65_500, 65_500),
    "jpeg-scans": jpeg_of_scans,
    "bmp": lambda: bmp(60_000, 60_000),
    "bmp-negative": lambda: bmp(60_000, -60_000),
    "tiff": lambda: tiff(100_000, 100_000),
    "tiff-pages": tiff_of_pages,
    "dicom-deflated": deflated_dicom,
    "dicom-rows": lambda: dicom_start() + image_elements(65_535, 65_535) + element(0x7FE0, 0x10, "OW", b"\0" * 64),
    "dicom-rows-ul": lambda: dicom_start() + image_elements(2**31, 2**31, vr="UL") + element(0x7FE0, 0x10, "OW", b""),
    "dicom-frames": lambda: (
        dicom_start() + image_elements(1000, 1000, frames=2_000_000_000) + element(0x7FE0, 0x10, "OW", b"\0" * 64)
    ),
    "dicom-no-pixels-there": lambda: dicom_start() + image_elements(6000, 6000) + element(0x7FE0, 0x10, "OW", b""),
    "dicom-length": lambda: dicom_start() + struct.pack("<HH2sHI", 8, 8, b"OB", 0, 0xFFFFFFF0) + b"\0" * 64,
    "dicom-nested": lambda: nested_sequences(10_000),
    "dicom-elements": lambda: many_elements(1_000_000),
    "dicom-run-length": run_length_bomb,
    "dicom-palette": palette_bomb,
    "dicom-jpeg-2000-size": lambda: jpeg_2000(set_size),
    "dicom-jpeg-2000-tiles": lambda: jpeg_2000(set_tiles),
    "dicom-jpeg-2000-layers": lambda: jpeg_2000(set_layers),
    "dicom-jpeg-ls-size": lambda: jpeg_ls(65_535, 65_535),
    "nifti-voxels": lambda: nifti_bomb((500, 500, 400)),
    "nifti-more-than-it-says": lambda: nifti_bomb((8, 8, 8), 2**28),
    "nifti-dimensions": lambda: nifti_bomb((32_000, 32_000, 32_000)),
    "gzip": lambda: gzip.compress(b"\0" * 2**26, mtime=0),
    "zip": lambda: b"PK\x03\x04" + deflate_zeros(2**26),
}


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """Return, of each bomb, what was said, in how many seconds, and by how many MB the process grew."""
    folder = tmp_path_factory.mktemp("door")
    for name in ("sound", "bombs", "said"):
        (folder / name).mkdir()
    for name in ("PNG", "JPEG", "BMP", "TIFF"):
        (folder / "sound" / name).write_bytes(encode(name))
    for syntax in ("explicit", "JPEG 2000", "JPEG-LS", "RLE"):
        (folder / "sound" / syntax).write_bytes(write_dicom(SMALL, syntax))
    (folder / "sound" / "nifti").write_bytes(write_nifti(np.arange(512, dtype=np.int16).reshape(8, 8, 8), packed=True))
    for name, make in BOMBS.items():
        (folder / "bombs" / name).write_bytes(make())
    subprocess.run([sys.executable, "-c", CHILD, str(folder)], check=True)
    return {path.name: json.loads(path.read_text()) for path in (folder / "said").iterdir()}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_at_once(name, tried):
    """A bomb is refused in half a second, and the process does not grow by 20 MB."""
    said, seconds, megabytes = tried[name]
    assert not said.startswith("read"), said
    # Elements are parsed one by one, as many as an honest header of thousands of frames has.
    assert seconds < (2 if name == "dicom-elements" else 0.5), said
    assert megabytes < (100 if name == "dicom-elements" else 20), said
