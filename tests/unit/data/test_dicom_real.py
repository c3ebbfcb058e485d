"""Each of pydicom's own test files is the picture that pydicom gives, or is refused for the reason in a table."""

import re
import warnings

import numpy as np
import pydicom
import pytest
from medical_files import shown_by_pydicom
from pydicom.pixels import apply_color_lut

from medvision.data.decode import ImageSource, decode_image
from medvision.errors import DecodeRejected


def rounded(fractions):
    return np.floor(np.clip(fractions, 0, 1) * 255 + 0.5).astype(np.uint8)


# Of pydicom's test files: those that are no picture of a patient, or not whole, or not read, and why.
REFUSED = {
    r"no_meta|README|LICENSE|crayons|zipMR|test1|test_PN|.*\.dump": "expected one of",
    r"SC_rgb_jpeg_gdcm|UN_sequence": "JPEG Lossless",
    r"JPEG-lossy|JPGExtended": "12 bits",
    r"image_dfl": "deflated",
    r"GDCMJ2K_TextGBR": "JP2 file",
    r"JPEG2000-embedded-sequence-delimiter": "tiles",
    r"MR_truncated|rtplan_truncated": "cut off",
    r"rtdose.*|badVR": "dose grid",
    r"liver_.*": "segmentation",
    r".*NoMeta|DICOMDIR.*|IM0.*|rtplan|rtstruct|reportsi.*|test-SR|waveform_ecg|priv_SQ|nested_priv_SQ|empty_charset_LEI|"
    r"meta_missing_tsyntax|no_meta_group_length": "without pixels",
}  # fmt: skip


def refusal(path):
    for pattern, reason in REFUSED.items():
        if re.fullmatch(pattern, path.name) or re.fullmatch(pattern, path.stem):
            return reason
    return None


def test_real_files(real_data):
    """Each of pydicom's test files is refused for the reason in the table, or is the picture that pydicom gives."""
    n_read = 0
    for path in sorted(path for path in real_data("dicom").rglob("*") if path.is_file()):
        reason = refusal(path)
        if reason is not None:
            with pytest.raises(DecodeRejected, match=re.escape(reason)):
                decode_image(path)
            continue
        pixels = decode_image(path)
        n_read += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            stored = pydicom.pixels.pixel_array(dataset, index=0)
        assert pixels.shape[:2] == (dataset.Rows, dataset.Columns), path
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            expected = apply_color_lut(stored, dataset) / 65535
        elif stored.ndim == 3:
            expected = stored / np.iinfo(stored.dtype).max
        elif "WindowWidth" in dataset:
            expected = shown_by_pydicom(path.read_bytes())
            expected = 1 - expected if dataset.PhotometricInterpretation == "MONOCHROME1" else expected
            if "PixelPaddingValue" in dataset:
                expected[stored == dataset.PixelPaddingValue] = 0
        else:
            continue
        assert np.abs(pixels.astype(int) - rounded(expected)).max() <= 1, path
    assert n_read > 70


def test_real_series_is_not_black(real_data):
    """A head CT through its own window and through the preset of the brain has black, gray and white."""
    path = real_data("dicom") / "J2K_pixelrep_mismatch.dcm"
    for window in ("", "brain", "bone"):
        pixels = decode_image(ImageSource(path, window=window))
        shares = [(pixels == 0).mean(), ((pixels > 40) & (pixels < 215)).mean(), (pixels == 255).mean()]
        assert shares[0] > 0.2 and shares[1] > 0.05, (window, shares)
        # Air outside the head is black: the picture is not turned over.
        assert pixels[:10, :10].max() == 0
