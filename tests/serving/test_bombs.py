"""Files that would grow when they are read: the service and its decoders stay as small as they were."""

import struct
import time
import zlib
from pathlib import Path

import pytest
from service_cases import image_bytes

GROWTH = 5 << 20


def png_chunk(kind, content):
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *, depth=8, color=0, interlaced=0, data=b"", before=b""):
    """Return a PNG file of so many pixels, whatever its data are."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    parts = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(data, 9)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiny(before):
    """Return a PNG file of 8 by 8 pixels with chunks before them."""
    return png(8, 8, data=bytes(72), before=before)


def jpeg(width, height):
    """Return a JPEG file whose header says so many pixels."""
    content = bytearray(image_bytes(form="JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


BOMBS = {
    "one bit a pixel": lambda: png(13_300, 13_300, depth=1, data=bytes(1663) * 13_300),
    "interlaced": lambda: png(13_300, 13_300, depth=1, interlaced=1, data=bytes(1663) * 13_300),
    "sixteen bits": lambda: png(60_000, 60_000, depth=16, color=6),
    "the largest": lambda: png(2**31 - 1, 2**31 - 1),
    "a JPEG": lambda: jpeg(65_500, 65_500),
    "a text that grows": lambda: tiny(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28), 9))),
    "a profile that grows": lambda: tiny(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 28), 9))),
    "many chunks": lambda: tiny(png_chunk(b"tEXt", b"a\0b") * 200_000),
    "many frames": lambda: tiny(png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb(service, name):
    """A file that would grow is answered or refused quickly, by decoders that stay small, and none of them dies."""
    content = BOMBS[name]()
    before, decoders = service.rss_bytes(), service.decoders()
    service.predict(content)
    began = time.monotonic()
    answers = [service.predict(content) for _ in range(3)]
    seconds = (time.monotonic() - began) / 3
    assert {answer.status_code for answer in answers} <= {200, 400}, answers[0].text
    assert service.decoders() == decoders
    peaks = [_peak_bytes(number) for number in decoders]
    print(f"{name}: {1000 * seconds:.0f} ms, decoders {max(peaks) >> 20} MiB")
    assert max(peaks) < 512 << 20 and service.rss_bytes() - before < 40 << 20
    assert seconds < 2


def _peak_bytes(pid):
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def test_bombs_leave_no_memory(service):
    """A hundred bombs one after another leave the service as large as it was."""
    content = BOMBS["one bit a pixel"]()
    service.predict(content)
    before = service.rss_bytes()
    assert {service.predict(content).status_code for _ in range(100)} == {400}
    assert service.rss_bytes() - before < GROWTH


def test_kinds_of_files_that_are_not_taken(service):
    """A file of another kind is refused, whatever its name says."""
    for form in ("TIFF", "GIF", "BMP", "WEBP", "PPM", "EPS", "PDF", "ICO"):
        content = image_bytes(form=form)
        assert service.predict(content, name="image.png").status_code == 400, form
