"""DICOM files: their pixels, what may be said of them, and a key in place of the patient.

Identifiers never leave this module: tags come from a list of those that name nobody, and a patient is a keyed hash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvision.data.dicom_display import show_colour, show_gray, show_palette
from medvision.data.dicom_file import open_dicom
from medvision.data.dicom_frames import read_frame, read_layout
from medvision.data.limits import OLDEST
from medvision.data.pseudonyms import pseudonym
from medvision.errors import ConfigInvalid, DecodeRejected

# None of them names a person, a place, a date or one device; of DICOM PS3.15 annex E, none is to be removed except
# what is made coarse here: the age, of which 90 stands for all above it (HIPAA, 45 CFR 164.514).
ALLOWED_TAGS = (
    "BitsStored",
    "BodyPartExamined",
    "Columns",
    "ConvolutionKernel",
    "ImageLaterality",
    "KVP",
    "Laterality",
    "MagneticFieldStrength",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "NumberOfFrames",
    "PatientAge",
    "PatientPosition",
    "PatientSex",
    "PhotometricInterpretation",
    "Rows",
    "ScanningSequence",
    "SliceThickness",
    "ViewPosition",
)
# An age string (VR AS): three digits and its unit.
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_UNITS_IN_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}


def decode_dicom(file: Path | bytes, frame: int = 0, window: str = "") -> np.ndarray:
    """Decode one frame as a radiologist sees it first: see ``show_gray`` for how values become gray levels.

    Returns
    -------
    uint8 (rows, columns) of a gray frame, (rows, columns, 3) of a colour one, in RGB.

    Raises
    ------
    DecodeRejected: not a whole DICOM image of a kind that is read, or no Hounsfield units for the ``window``.
    """
    with open_dicom(file) as dicom:
        layout = read_layout(dicom)
        if window and not layout.photometric.startswith("MONOCHROME"):
            raise DecodeRejected(f"the window {window} was asked for, but this file is in colour; expected a CT")
        stored = read_frame(dicom, layout, frame)
        if layout.photometric == "PALETTE COLOR":
            return show_palette(stored, dicom.header)
        if layout.samples == 3:
            return show_colour(stored, layout)
        return show_gray(stored, dicom.header, layout, frame, window)


def count_dicom_frames(file: Path | bytes) -> int:
    """Return how many frames a file has, without decoding any; DecodeRejected as ``decode_dicom``."""
    with open_dicom(file) as dicom:
        return read_layout(dicom).frames


def read_tags(file: Path, keywords: Sequence[str]) -> dict[str, str]:
    """Return the values of some of ALLOWED_TAGS, "" where the file has none; PatientAge is in years, at most 90.

    Raises
    ------
    ConfigInvalid: a keyword that is not among them.
    DecodeRejected: not a DICOM file.
    """
    for keyword in keywords:
        if keyword not in ALLOWED_TAGS:
            raise ConfigInvalid(
                f"The DICOM tag {keyword!r} {_why_not(keyword)}. Expected one of {', '.join(ALLOWED_TAGS)}."
            )
    with open_dicom(file) as dicom:
        return {keyword: _as_text(keyword, dicom.header.get(keyword)) for keyword in keywords}


def _why_not(keyword: str) -> str:
    from pydicom.datadict import tag_for_keyword

    if tag_for_keyword(keyword) is None:
        return "is no keyword of the standard"
    return "is not read, since it may name a person or a place"


def read_modality(files: Sequence[Path]) -> str:
    """Return the modality that all files have; "" if one is no DICOM file, or they have several."""
    try:
        found = {read_tags(file, ["Modality"])["Modality"] for file in files}
    except DecodeRejected:
        return ""
    return found.pop() if len(found) == 1 else ""


def patient_key(file: Path, key: bytes) -> str:
    """Return the keyed hash of a file's patient, "" if it names none; DecodeRejected if it is not a DICOM file.

    Two hospitals may give the same number to two people: the issuer of the number is part of what is hashed.
    """
    with open_dicom(file) as dicom:
        patient = str(dicom.header.get("PatientID") or "").strip()
        issuer = str(dicom.header.get("IssuerOfPatientID") or "").strip()
    return pseudonym(key, f"{issuer}\n{patient}") if patient else ""


def _as_text(keyword: str, value: Any) -> str:
    if value is None:
        return ""
    if keyword == "PatientAge":
        return _in_years(str(value))
    text = str(value) if isinstance(value, (str, int, float)) else "\\".join(str(part) for part in value)
    return "".join(letter for letter in text if letter.isprintable()).strip()[:64]


def _in_years(age: str) -> str:
    match = _AGE.fullmatch(age.strip())
    if match is None:
        return ""
    return f"{min(int(match[1]) / _UNITS_IN_A_YEAR[match[2]], OLDEST):.3g}"
