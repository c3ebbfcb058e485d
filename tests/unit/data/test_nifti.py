"""NIfTI volumes become axial slices as radiologists look at them, the same for every way to store them."""

import gzip
import os
import struct

import nibabel
import numpy as np
import pytest
from medical_files import write_nifti

from medvision.data import nifti
from medvision.data.decode import ImageSource, count_frames, decode_image, sniff_format
from medvision.errors import DecodeRejected

SHAPE = (5, 7, 3)
# From the patient's left to right, back to front, feet to head.
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
RANGE = {"cal_min": 0, "cal_max": VOXELS.max()}


def as_seen(voxels, slice_number):
    """Return a slice of voxels (x to the right, y to the front, z up) with the front up and the right on the left."""
    return np.flipud(np.fliplr(voxels[:, :, slice_number].T))


def gray(values):
    return np.floor(values / VOXELS.max() * 255 + 0.5).astype(np.uint8)


def test_axial_slices():
    """The first slice is the lowest; its first row is the front, its first column the patient's right."""
    content = write_nifti(VOXELS, **RANGE)
    for number in range(SHAPE[2]):
        assert np.array_equal(decode_image(ImageSource(content, number)), gray(as_seen(VOXELS, number)))


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "RPI", "PIR", "SRA", "AIL", "IPL"])
def test_order_of_the_voxels(axes):
    """The picture is the same whatever order the voxels are stored in."""
    turn = nibabel.orientations.axcodes2ornt(axes)
    image = nibabel.Nifti1Image(VOXELS, np.diag([2.0, 3, 4, 1])).as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turn)
    )
    assert "".join(nibabel.aff2axcodes(image.affine)) == axes
    content = write_nifti(np.asarray(image.dataobj), affine=image.affine, **RANGE)
    assert np.array_equal(decode_image(ImageSource(content, 1)), gray(as_seen(VOXELS, 1)))


def test_volumes_of_a_series():
    """Frame t * n_slices + z is slice z of volume t."""
    series = np.stack([VOXELS, VOXELS[::-1]], axis=3)
    content = write_nifti(series, **RANGE)
    assert np.array_equal(decode_image(ImageSource(content, 5)), gray(as_seen(series[..., 1], 2)))
    with pytest.raises(DecodeRejected, match="the file has 6"):
        decode_image(ImageSource(content, 6))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f4", ">f8", "<i4"])
def test_ways_to_store(packed, second, dtype):
    """NIfTI-1 and NIfTI-2, unpacked and in gzip, in either byte order, give one picture."""
    content = write_nifti(VOXELS.astype(dtype), packed=packed, second=second, **RANGE)
    assert sniff_format(content) == "NIFTI"
    assert np.array_equal(decode_image(content), gray(as_seen(VOXELS, 0)))


def test_slope_and_intercept():
    """Values are stored * slope + intercept, and a window is one of values; a slope of 0 leaves them as they are."""
    content = write_nifti(VOXELS, slope=10.0, intercept=-500.0)
    values = as_seen(VOXELS, 1) * 10.0 - 500
    pixels = decode_image(ImageSource(content, 1, "0,201"))
    assert np.array_equal(pixels, np.floor(np.clip((values + 0.5) / 200 + 0.5, 0, 1) * 255 + 0.5))
    plain = write_nifti(VOXELS, slope=0.0, intercept=-500.0, **RANGE)
    assert np.array_equal(decode_image(plain), gray(as_seen(VOXELS, 0)))


def test_range_is_that_of_the_volume():
    """Without a range in the header, percentiles of the whole volume go from black to white, in each of its slices."""
    voxels = np.random.default_rng(0).normal(100, 20, (40, 50, 6)).astype(np.float32)
    voxels[:, :, 0] = 100
    low, high = np.percentile(voxels, [0.5, 99.5])
    for number in (0, 3):
        expected = np.clip((as_seen(voxels, number) - low) / (high - low), 0, 1) * 255
        assert np.abs(decode_image(ImageSource(write_nifti(voxels), number)) - expected).max() <= 0.51


def test_percentiles_of_a_large_volume(monkeypatch):
    """Of a large volume, the voxels that are looked at give its percentiles to a hundredth of the range."""
    voxels = np.random.default_rng(0).normal(100, 20, (100, 100, 40)).astype(np.float32)
    whole = decode_image(write_nifti(voxels)).astype(int)
    monkeypatch.setattr(nifti, "_SAMPLED_VOXELS", 20_000)
    assert np.abs(decode_image(write_nifti(voxels)) - whole).max() <= 0.02 * 255


def test_voxels_that_are_no_numbers():
    """NaN is black, and does not count; without any number there is no picture."""
    voxels = np.linspace(0, 100, 105, dtype=np.float32).reshape(SHAPE)
    voxels[0, 0, 0] = np.nan
    pixels = decode_image(write_nifti(voxels))
    assert pixels[-1, -1] == 0 and pixels.max() > 50
    with pytest.raises(DecodeRejected, match="none of which is a number"):
        decode_image(write_nifti(np.full(SHAPE, np.nan, np.float32)))


@pytest.mark.parametrize("packed", [False, True])
def test_number_of_slices(packed, tmp_path):
    """The slices of a file are counted along the axis from feet to head, times its volumes, by the header alone."""
    path = tmp_path / "volume"
    affine = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    content = write_nifti(np.zeros((5, 7, 3, 2), np.int16), affine=affine, packed=packed)
    path.write_bytes(content)
    assert nibabel.aff2axcodes(affine) == ("A", "S", "R")
    assert count_frames(path) == 7 * 2
    if not packed:
        path.write_bytes(content[:400])
        assert count_frames(path) == 7 * 2


def test_file_is_unpacked_once(tmp_path, monkeypatch):
    """The slices of a file unpack it once, and again when it has changed."""
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(write_nifti(VOXELS, packed=True, **RANGE))
    loads = []
    load = nifti._load
    monkeypatch.setattr(nifti, "_load", lambda stream, size: loads.append(size) or load(stream, size))
    nifti._load_file.cache_clear()
    before = [decode_image(ImageSource(path, number)) for number in (0, 1, 2)]
    assert len(loads) == 1
    path.write_bytes(write_nifti(VOXELS[::-1], packed=True, **RANGE))
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(decode_image(ImageSource(path, 0)), before[0])
    assert len(loads) == 2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_truncated_is_refused(packed, kept):
    """A file that was cut off is refused, also where only the checksum is missing."""
    whole = write_nifti(np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16), packed=packed)
    with pytest.raises(DecodeRejected):
        decode_image(whole[: int(kept * len(whole))])


def test_damaged_gzip_is_refused():
    """A gzip file whose checksum is not that of what it holds is refused."""
    content = bytearray(write_nifti(VOXELS, packed=True))
    content[-6] ^= 1
    with pytest.raises(DecodeRejected, match="damaged"):
        decode_image(bytes(content))


def header_with(place, form, *values):
    content = bytearray(write_nifti(VOXELS))
    struct.pack_into(form, content, place, *values)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (write_nifti(VOXELS).replace(b"n+1\0", b"ni1\0"), r"\.img"),
        (header_with(40, "<8h", 5, 5, 7, 3, 1, 2, 1, 1), "dimensions"),
        (header_with(40, "<8h", 1, 5, 1, 1, 1, 1, 1, 1), "dimensions"),
        (header_with(40, "<8h", 3, 5, -7, 3, 1, 1, 1, 1), "dimensions"),
        (header_with(40, "<8h", 3, 5, 7, 30_000, 1, 1, 1, 1), "cut off"),
        (header_with(40, "<8h", 3, 32_000, 32_000, 1, 1, 1, 1, 1), "at most"),
        (header_with(40, "<8h", 4, 5, 7, 3, 30_000, 1, 1, 1), "cut off"),
        (header_with(108, "<f", 100.0), "where its voxels begin"),
        (header_with(108, "<f", np.nan), "where its voxels begin"),
        (header_with(70, "<2h", 32, 64), "complex"),
        (header_with(70, "<2h", 128, 24), "colours"),
        (header_with(252, "<2h", 0, 1)[:280] + bytes(48) + header_with(252, "<2h", 0, 1)[328:], "how its voxels lie"),
    ],
)
def test_what_is_no_image_is_refused(content, reason):
    """A header without its voxels, and one that can't be believed, are refused with a reason."""
    with pytest.raises(DecodeRejected, match=reason):
        decode_image(content)


def test_gzip_of_something_else():
    """A gzip file that holds no NIfTI is refused."""
    with pytest.raises(DecodeRejected, match="expected one of"):
        decode_image(gzip.compress(b"Patient: see above."))


REFUSED = {
    "COPYING": "expected one of",
    "analyze.hdr": "expected one of",
    "nifti1.hdr": "second file",
    "nifti2.hdr": "second file",
    "row_major.dconn.nii": "dimensions",
}


def test_real_files(real_data):
    """Each of nibabel's test files is refused for the reason in the table, or is what nibabel has in that slice."""
    n_slices = 0
    for path in sorted(real_data("nifti").iterdir()):
        if path.name in REFUSED:
            with pytest.raises(DecodeRejected, match=REFUSED[path.name]):
                decode_image(path)
            continue
        image = nibabel.as_closest_canonical(nibabel.load(path))
        values = image.get_fdata().reshape(*image.shape[:3], -1)
        low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
        if low == high:
            low, high = np.nanpercentile(values, [0.5, 99.5])
        values = np.nan_to_num(values, nan=low)
        assert count_frames(path) == values.shape[2] * values.shape[3]
        for frame in range(count_frames(path)):
            volume, number = divmod(frame, values.shape[2])
            seen = as_seen(values[..., volume], number)
            expected = np.clip((seen - low) / (high - low), 0, 1) * 255
            assert np.abs(decode_image(ImageSource(path, frame)) - expected).max() <= 0.51, (path, frame)
            n_slices += 1
    assert n_slices > 100
