"""Groupings by patient are suggested where names or columns carry one, with what they would join, and only there."""

import re
from collections import Counter

import pandas as pd
import pytest

from medvision.config import ColumnsConfig, DatasetConfig
from medvision.data.columns import find_columns
from medvision.data.labelling import search_name
from medvision.data.layout import ImageFile, detect_layout
from medvision.data.patients import suggest_patient_column, suggest_patient_pattern
from medvision.data.tables import ImageIndex, Table


def files(names, labels="ab", splits=("",)):
    return [ImageFile(name, labels[i % len(labels)], splits[i % len(splits)]) for i, name in enumerate(names)]


def grouped(suggestion, names):
    """Return the keys that a suggested pattern gives, as the manifest reads it."""
    matches = (search_name(suggestion.value, name) for name in names)
    return ["-".join(group for group in match.groups() if group) if match else "" for match in matches]


CARRIERS = {
    "personN": ([f"person{i // 3}_virus_{i}.jpeg" for i in range(60)], 20),
    "kermany": ([f"{'NORMAL2-' * (i < 30)}IM-{i % 30 // 2:04d}-0001-{i}.jpeg" for i in range(60)], 30),
    "nih": ([f"{i // 4:08d}_{i % 4:03d}.png" for i in range(60)], 15),
    "chexpert": ([f"train/patient{i // 3:05d}/study1/view{i % 3}_frontal.jpg" for i in range(60)], 20),
    "word": ([f"P{i // 2:03d}_{i}.png" for i in range(60)], 30),
    "bids": ([f"sub-{i // 2:02d}_ses-{i % 2}_T1w.nii.gz" for i in range(60)], 30),
    "uuid": ([f"{i // 2:08x}-0000-4000-8000-000000000000_{i}.png" for i in range(60)], 30),
    "oct": ([f"DRUSEN-{1000 + i // 2}-{i}.jpeg" for i in range(60)], 30),
    "breakhis": ([f"SOB_B_A-14-{i // 4}AB-40-{i:03d}.png" for i in range(60)], 15),
    "lettered": ([f"case{i // 2:03d}{'ab'[i % 2]}.png" for i in range(60)], 30),
    "generic": ([f"K{i // 3}X_{i % 3}.png" for i in range(60)], 20),
    "first part": ([f"ab{i // 3}-left-v{i}.png" for i in range(60)], 20),
}  # fmt: skip


@pytest.mark.parametrize("shape", CARRIERS)
def test_names_that_carry_a_patient(shape):
    """Well-known shapes of names, and common prefixes, are found, with the number of groups."""
    names, n_groups = CARRIERS[shape]
    best = suggest_patient_pattern(files(names))[0]
    assert (best.n_groups, best.n_matched, best.n_images) == (n_groups, 60, 60)
    assert len(set(grouped(best, names))) == n_groups and best.setting == "dataset.patient_pattern"
    DatasetConfig(patient_pattern=best.value)


@pytest.mark.parametrize(
    "names",
    [
        [f"ISIC_{i:07d}.jpg" for i in range(60)],
        [f"{i}.png" for i in range(60)],
        [f"IMG_{i:04d}.png" for i in range(60)],
        [f"gg ({i}).jpg" for i in range(60)],
        [f"glioma_{i}.png" for i in range(30)] + [f"none_{i}.png" for i in range(30)],
        [f"DermaMNIST_{'train' if i % 2 else 'test'}_{i:05d}.jpg" for i in range(60)],
        [f"{i * 7919 % 10007:x}{'abcdefgh'[i % 8]}.png" for i in range(60)],
        [f"{i:03d}{'abcdefgh'[i % 8]}.png" for i in range(56)] + ["900a.png", "900b.png", "901a.png", "901b.png"],
        [f"patient1_{i}.png" for i in range(60)],
        [f"person{i % 2}_{i}.png" for i in range(60)],
        [],
    ],
)
def test_names_that_carry_none(names):
    """Image numbers, classes, splits, letters by chance and one group for all are no patients."""
    assert suggest_patient_pattern(files(names)) == []


def test_what_a_suggestion_says():
    """A suggestion says how large groups are, whose images they join, and how many are of two splits or classes."""
    names = [f"person{i // 2}_virus_{i}.png" for i in range(9)]
    best = suggest_patient_pattern(files(names, labels="aaaaaabbb", splits=("train",) * 8 + ("test",)))[0]
    assert best.sizes == {1: 1, 2: 4} and best.n_straddling == best.n_mixed == 0
    mixed = suggest_patient_pattern(files(names, labels="aaaaaaaba", splits=("train",) * 7 + ("test",) * 2))[0]
    assert mixed.n_straddling == mixed.n_mixed == 1
    assert ("person3_virus_6.png", "person3_virus_7.png") in mixed.examples


def suggest_from(columns, rows):
    """Suggest columns of a table about images 0.png, 1.png, ..."""

    table = Table(
        "t.csv", pd.DataFrame([[f"{i}.png", *row] for i, row in enumerate(rows)], columns=["image", *columns])
    )
    found = files([f"{i}.png" for i in range(len(rows))])
    index = ImageIndex(file.path for file in found)
    return suggest_patient_column(found, table, find_columns(table, ColumnsConfig(), index))


def test_column_like_a_patient():
    """A column of lesions or cases that joins images is suggested, and says that it names no patient."""
    (found,) = suggest_from(["label", "lesion_id"], [["ab"[i % 2], f"L{i // 2}"] for i in range(20)])
    assert (found.setting, found.value, found.n_groups) == ("dataset.columns.patient", "lesion_id", 10)
    assert "does not say that it is the patient" in found.reason


def test_column_that_joins_nothing():
    """A column with another value for each image, or one for all, is not suggested; nor any beside a patient's."""
    assert suggest_from(["label", "lesion_id"], [["ab"[i % 2], f"L{i}"] for i in range(20)]) == []
    assert suggest_from(["label", "study"], [["ab"[i % 2], "S"] for i in range(20)]) == []
    assert (
        suggest_from(["label", "study", "patient"], [["ab"[i % 2], f"S{i // 2}", f"{i // 2}"] for i in range(20)]) == []
    )


def test_chest_xray(real_data):
    """Chest X-rays: the suggestion groups as the shipped pattern does: 3,118 patients, 725 straddling."""
    found = detect_layout(real_data("chest-xray"), DatasetConfig()).files
    (best,) = suggest_patient_pattern(found)
    ours = grouped(best, [file.path for file in found])
    shipped = [re.search(r"(person\d+)_|(NORMAL2-IM-\d+)|(IM-\d+)", file.path.rpartition("/")[2])[0] for file in found]
    assert len(set(ours)) == len(set(shipped)) == len(set(zip(ours, shipped, strict=True))) == 3118
    assert best.n_matched == 5856 and best.n_straddling == 725


def test_brain_mri(real_data):
    """Brain MRI: gg (12).jpg and image(3).jpg are numbered images, and nothing is suggested."""
    assert suggest_patient_pattern(detect_layout(real_data("brain-mri"), DatasetConfig()).files) == []


def test_covid317(real_data):
    """COVID: only the lettered images are joined, COVID-00003a and b, one pair of which straddles the split."""
    found = detect_layout(real_data("covid317"), DatasetConfig()).files
    (best,) = suggest_patient_pattern(found)
    assert best.n_matched == 7 and best.n_straddling == 1
    keys = Counter(key for key in grouped(best, [file.path for file in found]) if key)
    assert keys == {"COVID-00003": 3, "COVID-00013": 2, "COVID-00015": 2}


def test_derma28(real_data):
    """DermaMNIST: neither the numbers of images nor a lesion an image are patients."""
    layout = detect_layout(real_data("derma28"), DatasetConfig())
    assert layout.columns.like_patient == ("lesion_id",)
    assert suggest_patient_pattern(layout.files) == []
    assert suggest_patient_column(layout.files, layout.table, layout.columns) == []
