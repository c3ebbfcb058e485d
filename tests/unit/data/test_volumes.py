"""Files of several images: a row for each, one patient and one group for all of a file; and who the patient is."""

import nibabel
import numpy as np
import pandas as pd
import pytest

from medvision.data.decode import decode_image, hash_file
from medvision.data.grouping import group_images
from medvision.data.pseudonyms import load_or_make_key, pseudonym


def write_volume(path, seed, n=4):
    """Write n different slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 256, (20, 20, n)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


@pytest.fixture
def volumes(tmp_path):
    for i in range(4):
        write_volume(tmp_path / "d" / "ab"[i % 2] / f"scan{i}.nii.gz", i)
    return tmp_path / "d"


def test_slices_of_a_volume(build, volumes):
    """Each slice is an image with its own id and frame; all of a file are one patient and one group."""
    made, loaded = build(volumes), build(volumes)
    assert made.rows.equals(loaded.rows) and len(made.rows) == 16
    assert made.rows.frame.tolist() == [0, 1, 2, 3] * 4 and made.rows.image_id.is_unique
    for column in ("patient_key", "group"):
        assert made.rows.groupby("path")[column].nunique().tolist() == [1] * 4 and made.rows[column].nunique() == 4
    assert made.knows_patients and made.unmatched == 0


def test_images_of_one_file_are_one_group():
    """Images of a file belong together, also where no patient is known of them."""
    rows = pd.DataFrame({"path": ["x", "x", "y"], "patient_key": "", "pixel_hash": ["1", "2", "3"]})
    assert group_images(rows).tolist() == [0, 0, 1]


def test_sources_name_the_frame(build, volumes):
    """The source of a row gives the very pixels of that row."""
    manifest = build(volumes)
    assert [hash_file(source) for source in manifest.sources()] == manifest.rows.pixel_hash.tolist()
    assert not np.array_equal(*map(decode_image, manifest.sources()[:2]))


def test_volumes_of_one_patient(build, volumes, state):
    """A pattern that names the patient joins volumes; the file is the patient only where nobody is named."""
    rows = build(volumes, dataset={"patient_pattern": r"scan([01])"}).rows
    key = load_or_make_key(state)
    assert rows.patient_key[rows.path.str.contains("scan0")].unique().tolist() == [pseudonym(key, "0")]
    assert rows.patient_key.nunique() == 4


@pytest.fixture
def with_table(tmp_path, write_dataset):
    """Write four images, and a table that joins the first two and the last two."""
    root = write_dataset(tmp_path / "d", [f"{'ab'[i % 2]}/x{i // 3}_{i}.png" for i in range(4)])
    table = "".join(f"x{i // 3}_{i},P{i // 2},{i},{'FM'[i % 2]}\n" for i in range(4))
    (root / "meta.csv").write_text(f"image,patient,Age at exam,sex\n{table}")
    return root


def test_who_names_the_patient(build, with_table):
    """A given column comes before the pattern, and the pattern before a column that was only found."""

    def groups(**options):
        rows = build(with_table, dataset=options).rows.sort_values("path", key=lambda paths: paths.str[-5:])
        return [rows.patient_key.tolist().index(key) for key in rows.patient_key]

    assert groups() == [0, 0, 2, 2]
    assert groups(patient_pattern=r"(x\d)_") == [0, 0, 0, 3]
    assert groups(patient_pattern=r"(x\d)_", columns={"patient": "patient"}) == [0, 0, 2, 2]


def test_subgroup_columns(build, with_table):
    """Subgroups are columns of the manifest under cleaned names, numbers as numbers, after saving too."""
    for _ in range(2):
        manifest = build(with_table, dataset={"columns": {"subgroups": ["Age at exam", "sex"]}})
        assert manifest.subgroups == ("age_at_exam", "sex")
        assert manifest.rows.age_at_exam.tolist() == [0.0, 2.0, 1.0, 3.0] and manifest.rows.sex.tolist() == list("FFMM")


def test_change_of_the_table_is_seen(build, with_table):
    """Another cell of the table makes another manifest, and another fingerprint."""
    before = build(with_table)
    text = (with_table / "meta.csv").read_text()
    (with_table / "meta.csv").write_text(text.replace("P1,3,M", "P1,3,F!"))
    assert build(with_table).fingerprint != before.fingerprint


def test_numbered_classes(tmp_path, build, write_dataset):
    """Classes that are numbers are sorted as such: 2 before 10."""
    assert build(write_dataset(tmp_path / "d", ["10/1.png", "2/1.png", "0/1.png"])).classes == ("0", "2", "10")
