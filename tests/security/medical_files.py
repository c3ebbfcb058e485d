"""DICOM and NIfTI files made on the spot, sound ones and bombs."""

import gzip
import io
import struct
import warnings
import zlib

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, generate_uid

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "JPEG": "1.2.840.10008.1.2.4.50",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
    "deflated": "1.2.840.10008.1.2.1.99",
}
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}


def write_dicom(pixels, syntax="explicit", *, preamble=True, **attributes):
    """Return the bytes of a DICOM file of pixels (rows, columns[, 3]) or (frames, rows, columns), and attributes."""
    dataset = describe(pixels, **attributes)
    uid = UID(SYNTAXES[syntax])
    if syntax in {"JPEG-LS", "JPEG 2000", "RLE"}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES["explicit"])
            dataset.compress(uid, generate_instance_uid=False)
    elif syntax == "JPEG":
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].is_undefined_length = True
    elif syntax == "big endian":
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    return save(dataset, uid, preamble=preamble)


def scan(**attributes):
    """A CT whose stored values 0 to 4,095 are -1,024 to 3,071 HU."""
    return write_dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64), **{**CT, **attributes})


def sequence(**attributes):
    """Return a sequence of one item with these attributes."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def lookup_table(first, bits, entries):
    """Return a sequence with one lookup table, the first entry of which is for the value ``first``."""
    (item,) = sequence(LUTData=np.array(entries, "<u2").tobytes())
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item["LUTData"].VR = "OW"
    return [item]


def describe(pixels, **attributes):
    """Return the dataset of an image, to be saved."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT_STORAGE, generate_uid(entropy_srcs=["medvision"])
    is_colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    if pixels.ndim == 3 and not is_colour:
        dataset.NumberOfFrames, *_ = pixels.shape
    dataset.Rows, dataset.Columns = pixels.shape[:2] if is_colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    return dataset


def save(dataset, uid, *, preamble=True):
    """Return a dataset as the bytes of a file."""
    buffer = io.BytesIO()
    options = {"implicit_vr": uid == SYNTAXES["implicit"], "little_endian": uid != SYNTAXES["big endian"]}
    if not preamble:
        del dataset.file_meta
        dcmwrite(buffer, dataset, enforce_file_format=False, **options)
        return buffer.getvalue()
    dataset.file_meta.TransferSyntaxUID = uid
    dcmwrite(buffer, dataset, enforce_file_format=True, **options)
    return buffer.getvalue()


def dicom_start(syntax="explicit"):
    """Return preamble and file meta, after which anything may be put."""
    uid = SYNTAXES[syntax].encode()
    uid += b"\0" * (len(uid) % 2)
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element)) + element


def element(group, number, vr, value):
    """Return an element of Explicit VR Little Endian."""
    if vr in {"OB", "OW", "SQ", "UN"}:
        return struct.pack("<HH2sHI", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def image_elements(rows, columns, *, frames=None, vr="US", bits=16):
    """Return the elements that describe an image of any size, without its pixels."""
    pack = {"US": lambda n: struct.pack("<H", n), "UL": lambda n: struct.pack("<I", n)}[vr]
    parts = [element(0x28, 2, "US", struct.pack("<H", 1)), element(0x28, 4, "CS", b"MONOCHROME2 ")]
    if frames is not None:
        parts.append(element(0x28, 8, "IS", str(frames).encode().ljust(12)))
    parts += [element(0x28, 0x10, vr, pack(rows)), element(0x28, 0x11, vr, pack(columns))]
    parts += [element(0x28, number, "US", struct.pack("<H", bits)) for number in (0x100, 0x101)]
    parts += [element(0x28, 0x103, "US", struct.pack("<H", 0))]
    return b"".join(parts)


def encapsulated(content):
    """Return the element of compressed pixels with one fragment."""
    start = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return start + struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def write_nifti(voxels, *, affine=None, packed=False, second=False, slope=None, intercept=None, **header):
    """Return the bytes of a NIfTI file of voxels as they are stored; ``packed`` in gzip, ``second`` as NIfTI-2."""
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    image = kind(voxels, np.eye(4) if affine is None else affine)
    image.header.set_data_dtype(voxels.dtype)
    for name, value in header.items():
        image.header[name] = value
    content = bytearray(image.to_bytes())
    if slope is not None:
        # nibabel would scale the voxels back: the fields are set in the bytes.
        place, form = (176, "<dd") if second else (112, "<ff")
        struct.pack_into(form, content, place, slope, intercept)
    return gzip.compress(bytes(content), mtime=0) if packed else bytes(content)


def deflate_zeros(size_bytes):
    """Return a raw deflate stream of zeros, made piece by piece."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = b"\0" * 2**20
    return b"".join(packer.compress(block) for _ in range(size_bytes // len(block))) + packer.flush()


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
