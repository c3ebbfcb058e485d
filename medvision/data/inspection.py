"""Read each file of a dataset once, for its manifest: the hash and size of every image in it, and its patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medvision.data.decode import ImageSource, collapse_gray, count_frames, decode_image, hash_pixels, sniff_format
from medvision.errors import DecodeRejected


@dataclass(frozen=True)
class Inspected:
    """One image: the hash and size of its pixels, or the reason why it was rejected."""

    pixel_hash: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    reason: str = ""


@dataclass(frozen=True)
class InspectedFile:
    """The images of a file, and the keyed hash of the patient that it names, "" if it names none."""

    frames: tuple[Inspected, ...]
    patient_key: str = ""


def inspect_file(path: Path, key: bytes, window: str = "") -> InspectedFile:
    """Read all images of a file, and the patient that a DICOM file names."""
    from medvision.data.dicom import patient_key

    try:
        patient = patient_key(path, key) if sniff_format(path) == "DICOM" else ""
        n_frames = count_frames(path)
    except DecodeRejected as error:
        return InspectedFile((Inspected(reason=_nameless(error, path)),))
    return InspectedFile(tuple(_inspect(ImageSource(path, frame, window)) for frame in range(n_frames)), patient)


def _inspect(source: ImageSource) -> Inspected:
    try:
        pixels = collapse_gray(decode_image(source))
    except DecodeRejected as error:
        return Inspected(reason=_nameless(error, source.file))
    height, width = pixels.shape[:2]
    return Inspected(hash_pixels(pixels), width, height, 1 if pixels.ndim == 2 else 3)


def _nameless(error: DecodeRejected, file: Path | bytes) -> str:
    # A decoder, or the operating system, may quote the name of the file.
    reason = str(error)
    return reason.replace(str(file), "the file").replace(file.name, "the file") if isinstance(file, Path) else reason
