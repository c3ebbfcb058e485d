"""A process that decodes images for the service: what a damaged file does to a decoder, it does to this one alone.

It may write no file, and takes a limited amount of memory. What it sends is bytes, never a pickle: the service need not
trust a decoder that was taken over.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from medvision.data.decode import ImageSource, sniff_format
from medvision.data.dicom import count_dicom_frames
from medvision.errors import DecodeRejected
from medvision.serving.reading import read_forms

_PR_SET_PDEATHSIG = 1
IMAGE, REJECTED = b"\0", b"\1"
# An image of 40 megapixels, the largest that is read, takes 120 MB, and as much again for each step.
_MEMORY_BYTES = 2 << 30


def main() -> None:
    """Answer one image after another until the service hangs up."""
    _limit()
    with Connection(int(sys.argv[1])) as service:
        while True:
            try:
                asked, content = service.recv_bytes(), service.recv_bytes()
            except EOFError:
                return
            service.send_bytes(_answer(asked, content))


def _answer(asked: bytes, content: bytes) -> bytes:
    """Return the image in each form, one behind the other, or why there is none."""
    forms, formats = json.loads(asked)
    try:
        _check_frames(content, formats)
        read = read_forms(ImageSource(content), [tuple(form) for form in forms], tuple(formats))
    except DecodeRejected as error:
        return REJECTED + str(error).encode()
    except MemoryError:
        return REJECTED + b"the image needs more memory than one may have"
    return IMAGE + b"".join(read[tuple(form)].tobytes() for form in forms)


def _check_frames(content: bytes, formats: Sequence[str]) -> None:
    """Raise DecodeRejected for a file of several images: an answer for its first one would pass for one for all."""
    frames = count_dicom_frames(content) if "DICOM" in formats and sniff_format(content) == "DICOM" else 1
    if frames != 1:
        raise DecodeRejected(f"a DICOM file of {frames} frames; expected one image. Send a file for each")


def _limit() -> None:
    # One that hangs does not outlive the service, however that has ended.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
