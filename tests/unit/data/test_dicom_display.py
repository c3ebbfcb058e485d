"""DICOM values become the picture that a radiologist sees first."""

import numpy as np
import pydicom
import pytest
from medical_files import CT, lookup_table, save, scan, sequence, shown_by_pydicom, write_dicom

from medvision.data.decode import ImageSource, decode_image
from medvision.errors import DecodeRejected
from medvision.windows import CT_WINDOWS

EXPLICIT = "1.2.840.10008.1.2.1"
# Every value from -32,768 to 32,767.
ALL_SIGNED = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(256, 256)


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


def test_padding_as_an_unsigned_number():
    """Padding of signed pixels is found also where it is given as the unsigned number with the same bits."""
    content = write_dicom(np.array([[100, 300, -2000]], np.int16), Modality="MR")
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    dataset.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    assert decode_image(save(dataset, EXPLICIT)).tolist() == [[0, 255, 0]]


def test_table_of_signed_values():
    """A table of signed values begins at a negative one, which is written as the unsigned number with the same bits."""
    table = lookup_table(2**16 - 2, 16, [0, 1000, 2000, 3000])
    content = write_dicom(np.array([[-3, -2, -1, 0, 1, 9]], np.int16), ModalityLUTSequence=table)
    assert decode_image(content).tolist() == [[0, 0, 85, 170, 255, 255]]
