"""Datasets of each layout, of small phantoms: 15 patients of each of two classes, with two slices each."""

import csv
import functools
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "security"))

from medical_files import write_dicom, write_nifti

from medvision.data.phantom import make_phantom

CLASSES = ("glioma", "meningioma")
N_PATIENTS = 30
N_IMAGES = 60


@dataclass(frozen=True)
class Slice:
    """One image, and whose it is."""

    label: str
    patient: int
    number: int
    pixels: np.ndarray

    @property
    def split(self):
        """Return the split in which its patient is, 18 patients of 30 in train."""
        return ("train", "train", "train", "val", "test")[self.patient // 3 % 5]


@functools.cache
def slices():
    """Return the images, 32 pixels wide."""
    with tempfile.TemporaryDirectory() as folder:
        make_phantom(Path(folder, "d"), patients_per_class=N_PATIENTS // 2, slices_per_patient=2, image_size=32)
        found = []
        for label in CLASSES:
            for path in sorted(Path(folder, "d", f"phantom_{label}").iterdir()):
                patient, number = path.stem.removeprefix("phantom").split("_slice")
                pixels = np.array(Image.open(path))
                if label == "glioma":
                    # A band, so that a few epochs are enough to tell the classes.
                    pixels[:6] = 255
                found.append(Slice(label, int(patient), int(number), pixels))
        return tuple(found)


def write_png(root, name, pixels):
    """Write an image below a folder."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_bytes(root, name, content):
    """Write a file below a folder."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def class_folders(root):
    """Write glioma/p003_1.png."""
    for each in slices():
        write_png(root, f"{each.label}/p{each.patient:03}_{each.number}.png", each.pixels)


def split_folders(root):
    """Write Training/glioma/3_1.png."""
    for each in slices():
        folder = {"train": "Training", "val": "Validation", "test": "Testing"}[each.split]
        write_png(root, f"{folder}/{each.label}/{each.patient}_{each.number}.png", each.pixels)


def nested_sites(root):
    """Write data/site1/glioma/3_1.png."""
    for each in slices():
        site = "site1" if each.patient % 2 else "site2"
        write_png(root, f"data/{site}/{each.label}/{each.patient}_{each.number}.png", each.pixels)


def flat_with_table(root):
    """Write images/img_0031.png, and labels.csv with patient, split, sex and age."""
    rows = []
    for each in slices():
        name = f"img_{each.patient}{each.number}.png"
        write_png(root, f"images/{name}", each.pixels)
        sex, age = "FM"[each.patient // 2 % 2], 40 + each.patient
        rows.append((name, each.label, f"P{each.patient:03}", each.split, sex, age))
    write_table(root / "labels.csv", ("image", "diagnosis", "patient_id", "split", "sex", "age"), rows)


def write_table(path, header, rows):
    """Write a CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def labels_in_names(root):
    """Write glioma-3-1.png, all in one folder."""
    for each in slices():
        write_png(root, f"{each.label}-{each.patient}-{each.number}.png", each.pixels)


def dicom(root, **attributes):
    """Write CT/IM031.dcm: a CT in Hounsfield units, with its patient and the class in BodyPartExamined."""
    for each in slices():
        content = write_dicom(
            each.pixels.astype(np.uint16) * 8,
            Modality="CT",
            RescaleSlope=1,
            RescaleIntercept=-1024,
            PatientID=f"P{each.patient:03}",
            BodyPartExamined=each.label.upper(),
            **attributes,
        )
        write_bytes(root, f"CT/IM{each.patient}{each.number}.dcm", content)


def dicom_with_table(root):
    """Write the same, and labels.csv."""
    dicom(root)
    rows = [(f"CT/IM{each.patient}{each.number}.dcm", each.label) for each in slices()]
    write_table(root / "labels.csv", ("path", "label"), rows)


def nifti(root):
    """Write glioma/sub-03.nii.gz: a volume of the two slices a patient."""
    for first, second in zip(slices()[::2], slices()[1::2], strict=True):
        volume = np.stack([first.pixels, second.pixels], axis=-1).astype(np.int16)
        write_bytes(root, f"{first.label}/sub-{first.patient:02}.nii.gz", write_nifti(volume, packed=True))


def medmnist(path):
    """Write one .npz of arrays as MedMNIST has them."""
    arrays = {}
    for split in ("train", "val", "test"):
        found = [each for each in slices() if each.split == split]
        arrays[f"{split}_images"] = np.stack([each.pixels for each in found])
        arrays[f"{split}_labels"] = np.array([[CLASSES.index(each.label)] for each in found])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def zipped(path):
    """Write one zip of class folders."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path, "w") as file:
        class_folders(Path(folder))
        for image in sorted(Path(folder).rglob("*.png")):
            file.write(image, image.relative_to(folder))


def with_masks(root):
    """Write glioma/3 (1).png, as BUSI has it, and its mask beside it."""
    for each in slices():
        name = f"{each.label}/{each.patient} ({each.number})"
        write_png(root, f"{name}.png", each.pixels)
        write_png(root, f"{name}_mask.png", (each.pixels > 200).astype(np.uint8) * 255)
