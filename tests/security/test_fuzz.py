"""Whatever is done to a file, it is read as an image or refused: never a crash, a hang, or an array of another kind."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from medical_files import write_dicom, write_nifti
from PIL import Image

# Takes seeds from a folder and decodes the mutated files of some numbers. A crash, also of a decoder in C, ends this
# process alone; the file's number, which gives the same file again, stands in the last line.
CHILD = """
import sys, time, warnings
from pathlib import Path
import numpy as np
from medvision.data.decode import ImageSource, decode_image
from medvision.data.limits import MAX_PIXELS
from medvision.errors import DecodeRejected

EXTREMES = [bytes.fromhex(text) for text in ("0000", "ffff", "ffffffff", "00000080", "ffffff7f", "00000000")]

def mutate(content, random):
    content = bytearray(content)
    for _ in range(random.integers(1, 5)):
        # Half of the damage is done to the first bytes, where the header is.
        place = int(random.integers(0, min(len(content), 600 if random.random() < 0.5 else len(content)) or 1))
        length = int(random.integers(1, 64))
        match random.integers(6):
            case 0: content[place:place + 1] = random.bytes(1)
            case 1: content[place:place + length] = random.bytes(length)
            case 2: del content[place:place + length]
            case 3: content[place:place] = content[place:place + length]
            case 4: extreme = EXTREMES[random.integers(6)]; content[place:place + len(extreme)] = extreme
            case 5: content = content[:max(place, 1)] if random.random() < 0.3 else content
    return bytes(content)

warnings.simplefilter("ignore")
seeds = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
n_read = 0
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    random = np.random.default_rng(number)
    content = mutate(seeds[number % len(seeds)], random)
    print(number, flush=True)
    start = time.process_time()
    try:
        pixels = decode_image(ImageSource(content, 0, ["", "", "", "brain"][random.integers(4)]))
    except DecodeRejected as error:
        assert str(error) and "\\n" not in str(error), error
    else:
        n_read += 1
        assert pixels.dtype == np.uint8 and pixels.shape[2:] in {(), (3,)} and pixels.ndim in {2, 3}, pixels.shape
        assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS, pixels.shape
    assert time.process_time() - start < 5, "took more than 5 s"
print("read", n_read)
"""


def write_seeds(folder):
    """Write a sound file of each format, and of each way to store pixels that has its own reader."""
    random = np.random.default_rng(0)
    gray, deep = random.integers(0, 256, (32, 40), np.uint8), random.integers(-1000, 2000, (32, 40), np.int16)
    colour = random.integers(0, 256, (32, 40, 3), np.uint8)
    contents = {}
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        for name, pixels in (("gray", gray), ("colour", colour)):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, kind)
            contents[f"{kind}-{name}"] = buffer.getvalue()
    for options in ({"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "packbits"}):
        buffer = io.BytesIO()
        Image.fromarray(gray).save(buffer, "TIFF", **options)
        contents[f"TIFF-{options['compression']}"] = buffer.getvalue()
    ct = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    for syntax in ("implicit", "explicit", "big endian", "JPEG-LS", "JPEG 2000", "RLE"):
        contents[f"DICOM-{syntax}"] = write_dicom(deep, syntax, **ct)
    for syntax in ("JPEG", "JPEG 2000", "RLE", "JPEG-LS"):
        contents[f"DICOM-{syntax}-colour"] = write_dicom(colour, syntax)
    contents["DICOM-frames"] = write_dicom(np.stack([deep, deep]))
    contents["DICOM-bare"] = write_dicom(deep, preamble=False, **ct)
    contents["DICOM-lut"] = write_dicom(
        gray,
        PhotometricInterpretation="PALETTE COLOR",
        **{f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")},
        **{f"{name}PaletteColorLookupTableData": bytes(512) for name in ("Red", "Green", "Blue")},
    )
    voxels = random.integers(-1000, 2000, (8, 9, 5), np.int16)
    contents["NIFTI"] = write_nifti(voxels)
    contents["NIFTI-gz"] = write_nifti(voxels, packed=True)
    contents["NIFTI-2"] = write_nifti(voxels.astype(np.float32), second=True, affine=np.diag([-2, 2, 3, 1]))
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def copy_real_files(folder):
    """Add small real files, where there are any."""
    base = os.environ.get("MEDVISION_TEST_DATA")
    paths = (
        sorted(path for part in ("dicom", "nifti", "bad-images") for path in Path(base, part).rglob("*"))
        if base
        else []
    )
    for number, path in enumerate(paths):
        if path.is_file() and path.stat().st_size < 20_000 and not path.name.startswith("IM0000"):
            (folder / f"real-{number}").write_bytes(path.read_bytes())


def decode_mutated(folder, first, last):
    """Decode the mutated files of these numbers in a process of their own; return how many were read as an image."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(first), str(last)], capture_output=True, text=True, timeout=300
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (done.returncode, f"file {lines[-1:]}", done.stderr[-2000:])
    return int(lines[-1].split()[1])


def test_damaged_files_are_read_or_refused(tmp_path):
    """400 damaged files of all formats are read or refused."""
    write_seeds(tmp_path)
    assert 20 < decode_mutated(tmp_path, 0, 400) < 380


@pytest.mark.slow
def test_20000_damaged_files_are_read_or_refused(tmp_path):
    """20,000 damaged files, of real ones too where there are any, are read or refused, each within 5 s."""
    write_seeds(tmp_path)
    copy_real_files(tmp_path)
    n_read = sum(decode_mutated(tmp_path, first, first + 2000) for first in range(1000, 21_000, 2000))
    assert 1000 < n_read < 19_000
