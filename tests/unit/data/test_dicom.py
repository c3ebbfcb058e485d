"""DICOM values become the picture that a radiologist sees first, and nothing that names the patient comes out."""

import logging
import re
import subprocess
import sys
import warnings

import numpy as np
import pydicom
import pytest
from medical_files import describe, save, write_dicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from medvision.data.decode import ImageSource, count_frames, decode_image, sniff_format
from medvision.data.dicom import ALLOWED_TAGS, patient_key, read_tags
from medvision.errors import ConfigInvalid, DecodeRejected
from medvision.windows import CT_WINDOWS

EXPLICIT = "1.2.840.10008.1.2.1"
CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
KEY = bytes(32)
# Every value from -32,768 to 32,767.
ALL_SIGNED = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(256, 256)


def rounded(fractions):
    return np.floor(np.clip(fractions, 0, 1) * 255 + 0.5).astype(np.uint8)


def scan(**attributes):
    """A CT whose stored values 0 to 4,095 are -1,024 to 3,071 HU."""
    return write_dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64), **{**CT, **attributes})


def sequence(**attributes):
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def lookup_table(first, bits, entries):
    (item,) = sequence(LUTData=np.array(entries, "<u2").tobytes())
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item["LUTData"].VR = "OW"
    return [item]


def shown_by_pydicom(content):
    """Return pydicom's own modality and VOI transformations of the whole array, scaled to 0 to 255."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
        values = apply_modality_lut(dataset.pixel_array, dataset)
        shown = apply_voi_lut(values, dataset).astype(np.float64)
        # The output range that PS3.3 C.11.2.1.2 gives to a window: that of the stored bits after the modality step.
        bits = dataset.BitsStored
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if dataset.PixelRepresentation else [0, 2**bits - 1])
        low, high = apply_modality_lut(ends, dataset)
    return (shown - low) / (high - low)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("window", [(40, 80), (-600, 1500), (0.5, 1.5), (1000, 4096)])
@pytest.mark.parametrize(
    "rescale", [{}, {"RescaleSlope": 1, "RescaleIntercept": -1024}, {"RescaleSlope": 0.7, "RescaleIntercept": 3}]
)
def test_window_of_the_file(function, window, rescale):
    """A file's window is applied after its rescale, as pydicom does it on the whole array."""
    attributes = {"WindowCenter": window[0], "WindowWidth": window[1], **rescale}
    content = write_dicom(ALL_SIGNED, **attributes, **({"VOILUTFunction": function} if function else {}))
    # Rounded to the nearest gray level.
    assert np.abs(decode_image(content) - shown_by_pydicom(content) * 255).max() < 0.5 + 1e-6


def test_first_of_several_windows():
    """Of several windows, the first is that of the file."""
    several = scan(WindowCenter=[40, 500], WindowWidth=[80, 2000])
    assert np.array_equal(decode_image(several), decode_image(scan(WindowCenter=40, WindowWidth=80)))


@pytest.mark.parametrize("name", CT_WINDOWS)
def test_preset_window(name):
    """A preset shows its range of Hounsfield units from black to white, whatever window the file has."""
    center, width = CT_WINDOWS[name]
    hounsfield = np.arange(4096) - 1024
    pixels = decode_image(ImageSource(scan(WindowCenter=0, WindowWidth=10), window=name)).ravel()
    assert (pixels[hounsfield <= center - width / 2] == 0).all()
    assert (pixels[hounsfield >= center + width / 2] == 255).all()
    assert abs(int(pixels[hounsfield == center][0]) - 128) <= 1
    assert (np.diff(pixels.astype(int)) >= 0).all()


def test_window_by_numbers():
    """CENTER,WIDTH is the preset of these numbers."""
    assert np.array_equal(
        decode_image(ImageSource(scan(), window="40,80")), decode_image(ImageSource(scan(), window="brain"))
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "MR"},
        {"Modality": "CT"},
        {**CT, "RescaleType": "US"},
        {**CT, "Modality": "PT"},
        {**CT, "Modality": ""},
    ],
)
def test_window_needs_hounsfield_units(attributes):
    """A window in HU is refused for what is no CT, has no rescale, or says that its values are something else."""
    content = write_dicom(ALL_SIGNED, **attributes)
    with pytest.raises(DecodeRejected, match="no Hounsfield units"):
        decode_image(ImageSource(content, window="brain"))


def test_window_of_a_photograph(write_image, noise, tmp_path):
    """A window for an ordinary image is refused, not passed over."""
    path = write_image(tmp_path / "image.png", noise(0))
    with pytest.raises(DecodeRejected, match="no Hounsfield units"):
        decode_image(ImageSource(path, window="brain"))


@pytest.mark.parametrize("width", [0, 0.5, -3])
def test_window_without_width(width):
    """A window that has no width is refused, not mended."""
    with pytest.raises(DecodeRejected, match="without a width"):
        decode_image(scan(WindowCenter=40, WindowWidth=width))


def test_8_bits_without_window():
    """8-bit values are shown as they are, whichever of them a picture has."""
    pixels = np.arange(100, 164, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(decode_image(write_dicom(pixels)), pixels)


def test_ct_without_window():
    """A CT without a window is shown from -1,024 to 3,071 HU, whichever values it has."""
    assert np.abs(decode_image(scan()).ravel() - np.arange(4096) * 255 / 4095).max() <= 0.5
    narrow = write_dicom(np.full((8, 8), 1024, np.uint16), **CT)
    assert (decode_image(narrow) == round(1024 * 255 / 4095)).all()


def test_16_bits_without_window():
    """An MR without a window is shown from its darkest to its brightest value; padding does not count and is black."""
    values = np.array([[100, 300, 500, -2000]], np.int16)
    content = write_dicom(values, Modality="MR", PixelPaddingValue=-2000)
    assert decode_image(content).tolist() == [[0, 128, 255, 0]]


def test_32_bits():
    """32-bit values are shown from the darkest to the brightest."""
    values = np.array([[5, 2**31, 2**32 - 1]], np.uint32)
    assert decode_image(write_dicom(values)).tolist() == [[0, 127, 255]]


def test_padding_of_inverted_images():
    """Padding is black also where high values are dark."""
    values = np.array([[0, 1, 4095, 2000]], np.uint16)
    content = write_dicom(values, PhotometricInterpretation="MONOCHROME1", BitsStored=12, PixelPaddingValue=0)
    assert decode_image(content)[0, :3].tolist() == [0, 255, 0]


def test_range_of_padding():
    """Where padding is a range of values, all of it is black."""
    values = np.array([[0, 10, 20, 30, 40]], np.uint16)
    content = write_dicom(values, PixelPaddingValue=0, PixelPaddingRangeLimit=10)
    assert decode_image(content).tolist() == [[0, 0, 0, 128, 255]]


@pytest.mark.parametrize("attributes", [{}, {"WindowCenter": 2000, "WindowWidth": 1000}])
def test_monochrome1_is_turned_over(attributes):
    """MONOCHROME1 is the negative of MONOCHROME2, after the window."""
    upright = decode_image(scan(**attributes)).astype(int)
    turned = decode_image(scan(PhotometricInterpretation="MONOCHROME1", **attributes)).astype(int)
    assert np.abs(turned - (255 - upright)).max() <= 1


def test_negative_slope():
    """A negative slope turns dark and bright over."""
    values = np.array([[10, 20, 30]], np.uint16)
    assert decode_image(write_dicom(values, RescaleSlope=-1, RescaleIntercept=0)).tolist() == [[255, 128, 0]]


def test_modality_table():
    """A modality table is applied before the window; values beyond its ends have its ends' entries."""
    table = lookup_table(10, 16, [0, 1000, 2000, 3000])
    values = np.array([[0, 10, 11, 12, 13, 500]], np.uint16)
    content = write_dicom(values, ModalityLUTSequence=table, WindowCenter=1500.5, WindowWidth=3001)
    assert decode_image(content).tolist() == [[0, 0, 85, 170, 255, 255]]


@pytest.mark.parametrize(("bits", "entries"), [(8, [0, 80, 200, 255]), (12, [0, 1300, 3000, 4095])])
def test_voi_table(bits, entries):
    """A VOI table is used before a window; its entries span their own bits, also where inputs have more than those."""
    table = lookup_table(1000, bits, entries)
    values = np.array([[0, 1000, 1001, 1002, 1003, 5000]], np.uint16)
    content = write_dicom(values, VOILUTSequence=table, WindowCenter=1, WindowWidth=1)
    brightest = 2**bits - 1
    expected = [round(255 * entries[index] / brightest) for index in (0, 0, 1, 2, 3, 3)]
    assert decode_image(content).tolist() == [expected]


def test_frames_with_their_own_window():
    """In an enhanced file each frame has its own rescale and window, or that of all frames."""
    values = np.stack([np.arange(4096, dtype=np.uint16).reshape(64, 64)] * 2)
    rescale = sequence(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    groups = [
        sequence(FrameVOILUTSequence=sequence(WindowCenter=center, WindowWidth=width))[0]
        for center, width in ((40, 80), (-600, 1500))
    ]
    content = write_dicom(
        values,
        Modality="CT",
        SharedFunctionalGroupsSequence=sequence(PixelValueTransformationSequence=rescale),
        PerFrameFunctionalGroupsSequence=groups,
    )
    for frame, preset in enumerate(("brain", "lung")):
        assert np.array_equal(
            decode_image(ImageSource(content, frame)), decode_image(ImageSource(scan(), window=preset))
        )


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


class TestTags:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "scan"
        path.write_bytes(scan(PatientID="4711", IssuerOfPatientID="A", PatientAge="045Y", Manufacturer="ACME\r\nCorp"))
        return path

    def test_allowed_tags_are_read(self, path):
        """Values come as text, "" where the file has none."""
        assert read_tags(path, ["Modality", "Rows", "PatientAge", "Laterality"]) == {
            "Modality": "CT",
            "Rows": "64",
            "PatientAge": "45",
            "Laterality": "",
        }

    def test_values_are_one_line(self, path):
        """Control characters of a value don't come out."""
        assert read_tags(path, ["Manufacturer"]) == {"Manufacturer": "ACMECorp"}

    @pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "PatientBirthDate", "InstitutionName", "modality"])
    def test_other_tags_are_refused(self, path, keyword):
        """A tag that is not on the list is refused, and the message names those that are."""
        with pytest.raises(ConfigInvalid, match="Modality"):
            read_tags(path, [keyword])

    def test_list_names_nobody(self):
        """No tag of the list is one that PS3.15 annex E has removed, or a date, a name, a number or free text."""
        for keyword in ALLOWED_TAGS:
            vr = pydicom.datadict.dictionary_VR(keyword)
            assert vr in {"CS", "US", "IS", "DS", "AS"} or keyword in {
                "Manufacturer", "ManufacturerModelName", "ConvolutionKernel",
            }, keyword  # fmt: skip

    @pytest.mark.parametrize(
        ("age", "years"),
        [("018M", "1.5"), ("003W", "0.0575"), ("101Y", "90"), ("", ""), ("old", ""), ("002D", "0.00548")],
    )
    def test_age_is_in_years(self, tmp_path, age, years):
        """An age comes in years, 90 for all above it."""
        path = tmp_path / "scan"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path.write_bytes(scan(PatientAge=age))
        assert read_tags(path, ["PatientAge"]) == {"PatientAge": years}

    def test_patient_key(self, path, tmp_path):
        """The key depends on the number, its issuer and the secret, and holds none of them."""
        other = tmp_path / "other"
        keys = {patient_key(path, KEY), patient_key(path, bytes(range(32)))}
        for attributes in (
            {"PatientID": "4711", "IssuerOfPatientID": "B"},
            {"PatientID": "4712", "IssuerOfPatientID": "A"},
        ):
            other.write_bytes(scan(**attributes))
            keys.add(patient_key(other, KEY))
        assert len(keys) == 4
        assert all(re.fullmatch("[0-9a-f]{16}", key) and "4711" not in key for key in keys)

    def test_patient_key_does_not_depend_on_the_rest(self, path, tmp_path):
        """Two images of a patient have one key, whatever padding the number has."""
        other = tmp_path / "other"
        other.write_bytes(write_dicom(ALL_SIGNED, "implicit", PatientID="4711 ", IssuerOfPatientID="A", Modality="MR"))
        assert patient_key(other, KEY) == patient_key(path, KEY)

    def test_no_patient_no_key(self, tmp_path):
        """Where the file names no patient there is no key, which would join all such files."""
        path = tmp_path / "scan"
        path.write_bytes(scan(PatientID="", IssuerOfPatientID="A"))
        assert patient_key(path, KEY) == ""


CANARY = "CANARY^PATIENT"


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": CANARY},
        {"NumberOfFrames": CANARY},
        {"PhotometricInterpretation": CANARY},
        {"WindowCenter": CANARY, "WindowWidth": 1},
        {"RescaleSlope": CANARY, "RescaleIntercept": 0},
        {"VOILUTFunction": CANARY, "WindowCenter": 1, "WindowWidth": 9},
        {"Modality": CANARY, "SpecificCharacterSet": CANARY, "StudyDate": CANARY, "PatientAge": CANARY},
    ],
)
def test_no_text_of_the_file_comes_out(attributes, tmp_path, caplog, capfd):
    """A name that stands where a number should, or anywhere else, is in no message, no log and no warning."""
    dataset = describe(ALL_SIGNED)
    dataset.PatientName = dataset.PatientID = dataset.StudyDescription = CANARY
    for keyword, value in attributes.items():
        dataset.add_new(keyword, "LO", str(value))
    dataset.add_new(0x00091001, "LO", CANARY)
    path = tmp_path / "scan"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(save(dataset, EXPLICIT))
    capfd.readouterr(), caplog.clear()
    said = ""
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for ask in (
            lambda: decode_image(ImageSource(path, window="brain")),
            lambda: decode_image(path),
            lambda: patient_key(path, KEY),
        ):
            try:
                said += str(ask())
            except DecodeRejected as error:
                said += str(error)
    said += caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in caught)
    assert "CANARY" not in said and "PATIENT" not in said


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
