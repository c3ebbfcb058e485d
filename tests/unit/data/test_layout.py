"""Each layout of a dataset is found and said; what could be meant in two ways is refused with the way out."""

import os

import pandas as pd
import pytest

from medvision.config import DatasetConfig
from medvision.data.layout import detect_layout
from medvision.errors import DataInvalid


@pytest.fixture
def lay_out(tmp_path, write_dataset):
    """Write images, and tables by name, into a folder; find their layout with some settings."""

    def write_and_detect(*names, tables=None, **options):
        root = write_dataset(tmp_path / "d", names)
        root.mkdir(exist_ok=True)
        for name, text in (tables or {}).items():
            (root / name).write_text(text)
        return detect_layout(root, DatasetConfig(**options))

    return write_and_detect


def seen(layout):
    """Return {path: (label, split)}."""
    return {file.path: (file.label, file.split) for file in layout.files}


def left_out(layout):
    return dict(layout.left_out)


FLAT = [f"{i}.png" for i in range(6)]
TABLE = "image,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(6))


def test_one_folder_around_all(lay_out):
    """Folders that hold everything are passed over."""
    layout = lay_out("data/v2/b/1.png", "data/v2/a/1.png")
    assert seen(layout) == {"data/v2/a/1.png": ("a", ""), "data/v2/b/1.png": ("b", "")}
    assert layout.kind == "class folders" and layout.evidence == ("Folder 3 of the path names the class: a, b.",)


def test_split_folders_below_a_wrapper(lay_out):
    """Split folders are found below one folder around all."""
    names = [f"data/{split}/{c}/1.png" for split in ("Training", "Testing") for c in "ab"]
    layout = lay_out(*names)
    assert seen(layout)["data/Testing/b/1.png"] == ("b", "test")
    assert "Folder 2 of the path names the split." in layout.evidence


def test_split_folders_below_classes(lay_out):
    """Split folders inside each class folder are splits, not classes."""
    layout = lay_out(*[f"{c}/{split}/1.png" for split in ("train", "test") for c in "ab"])
    assert seen(layout)["b/test/1.png"] == ("b", "test")


def test_sites_above_classes(lay_out):
    """Where sites have the same classes in them, the class is the lower folder, and the site a subgroup."""
    layout = lay_out(*[f"{site}/{c}/1.png" for site in ("site1", "site 2") for c in ("normal", "tumor")])
    assert set(seen(layout).values()) == {("normal", ""), ("tumor", "")}
    assert {file.subgroups["site"] for file in layout.files} == {"site1", "site 2"}


@pytest.mark.parametrize("names", [("patient1", "patient2"), ("0017", "0018")])
def test_patients_above_classes_are_no_sites(lay_out, names):
    """Folders of patients that hold the same classes each give no subgroup, which would keep their names."""
    layout = lay_out(*[f"{name}/{c}/1.png" for name in names for c in ("normal", "tumor")])
    assert set(seen(layout).values()) == {("normal", ""), ("tumor", "")}
    assert all(not file.subgroups for file in layout.files)


def test_sites_inside_a_split(lay_out):
    """A split above sites above classes is read as such."""
    names = [f"{s}/{site}/{c}/1.png" for s in ("train", "test") for site in ("siteA", "siteB") for c in ("no", "yes")]
    assert seen(lay_out(*names))["test/siteB/yes/1.png"] == ("yes", "test")


@pytest.mark.parametrize("names", [("images", "ap"), ("left", "right"), ("2019", "2020")])
def test_views_below_classes(lay_out, names):
    """Folders of views or years below each class are no classes, though all classes have them."""
    layout = lay_out(*[f"{c}/{name}/{i}.png" for i, c in enumerate(("normal", "tumor")) for name in names])
    assert {label for label, _ in seen(layout).values()} == {"normal", "tumor"}


def test_patients_below_classes(lay_out):
    """Folders of patients below the classes are left to the pattern of the patient."""
    layout = lay_out("a/p1/1.png", "a/p2/1.png", "b/p3/1.png")
    assert [label for label, _ in seen(layout).values()] == ["a", "a", "b"]


def test_either_level_could_be_the_class(lay_out):
    """Two crossed levels of which nothing is known are refused; a pattern with a / on the path decides."""
    names = [f"{x}/{y}/1.png" for x in ("red", "blue") for y in ("cat", "dog")]
    with pytest.raises(DataInvalid, match=r"either of two levels.*blue, red.*cat, dog.*label_pattern"):
        lay_out(*names)
    layout = lay_out(*names, label_pattern="^[^/]+/([^/]+)/")
    assert {label for label, _ in seen(layout).values()} == {"cat", "dog"} and layout.kind == "file names"


@pytest.mark.parametrize(
    "folders", [("patient1", "patient2", "patient3"), ("images", "masks"), ("sub-01", "sub-02"), ("site1", "site2")]
)
def test_folders_that_are_no_classes(lay_out, folders):
    """Folders named as patients, sites or kinds of files are never taken for classes."""
    with pytest.raises(DataInvalid, match=r"not like classes.*dataset\.labels"):
        lay_out(*[f"{folder}/{i}.png" for i, folder in enumerate(folders)])


PEOPLE = ("John_Doe", "Maria Rossi", "roe^richard")
CASES = tuple(f"x{i}kz" for i in range(12))


@pytest.mark.parametrize(
    ("names", "sign"),
    [
        ([f"{person}/{view}.png" for person in PEOPLE for view in ("left", "right")], "called as people"),
        ([f"{person}/{view}/1.png" for person in PEOPLE for view in ("left", "right")], "called as people"),
        ([f"train/{person}/{i}.png" for person in PEOPLE for i in range(40)], "called as people"),
        ([f"{a} {b}/{i}.png" for a, b in zip("ABCDE", "VWXYZ", strict=True) for i in "12"], ""),
        ([f"Aaa_{b}bb/{i}.png" for b in "VWXYZ" for i in "12"], "called as people"),
        ([f"{case}/{view}.png" for case in CASES[:3] for view in ("L", "R")], "the same views"),
        ([f"{case}/{view}/{i}.png" for case in CASES[:6] for view in ("left", "right") for i in "12"], "same views"),
        ([f"{case}/{i}.png" for case in CASES for i in "123"], "3.0 images each"),
        ([f"{case}/{i}.png" for case in CASES for i in "1234"], ""),
        ([f"{stage}_Demented/{i}.png" for stage in ("Mild", "Moderate", "Non") for i in range(30)], ""),
        ([f"{name}/{i}.png" for name in ("Viral Pneumonia", "Lung Opacity", "Normal") for i in "12"], ""),
    ],
)
def test_people_are_no_classes(lay_out, names, sign):
    """Folders that look like people or cases are refused with the ways out, and no message repeats a name."""
    if not sign:
        assert lay_out(*names).kind == "class folders"
        return
    with pytest.raises(DataInvalid, match=rf"not like classes.*{sign}.*--labels.*--patient-pattern") as refused:
        lay_out(*names)
    assert not any(person in str(refused.value) for person in (*PEOPLE, *CASES, "Aaa"))


def test_the_ways_out_for_people(lay_out, tmp_path):
    """A table of labels is taken beside folders of people; and a pattern makes them classes after all."""
    names = [f"{person}/{view}.png" for person in PEOPLE for view in ("left", "right")]
    rows = "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names))
    (tmp_path / "labels.csv").write_text(f"image,label\n{rows}")
    assert {label for label, _ in seen(lay_out(*names, labels=tmp_path / "labels.csv")).values()} == {"a", "b"}
    assert lay_out(*names, label_pattern="^([^/]+)/").kind == "file names"


def test_table_in_the_folder(lay_out):
    """A flat folder with a table of labels in it needs no setting."""
    layout = lay_out(*FLAT, tables={"labels.csv": TABLE})
    assert layout.kind == "table" and seen(layout)["1.png"] == ("b", "")
    assert "labels.csv: column image names 6 of 6 images, label their labels." in layout.evidence


def test_table_beside_the_folder(lay_out, tmp_path):
    """A table anywhere is read when it is given."""
    (tmp_path / "elsewhere.tsv").write_text(TABLE.replace(",", "\t"))
    assert seen(lay_out(*FLAT, labels=tmp_path / "elsewhere.tsv"))["0.png"] == ("a", "")


def test_parquet_table(lay_out, tmp_path):
    """A Parquet table is read as a CSV is; integers and whole floats are the same class."""
    pd.DataFrame({"image_id": range(6), "target": [0.0, 1.0] * 3}).to_parquet(tmp_path / "labels.parquet")
    assert seen(lay_out(*FLAT, labels=tmp_path / "labels.parquet"))["1.png"] == ("1", "")


def test_everything_from_the_table(lay_out):
    """Patient, split and subgroups are found by the names of their columns; unknown cells stay empty."""
    rows = [
        f"{i},{'ab'[i % 2]},P{i // 2},{'train' if i < 4 else 'Testing'},{'FM'[i % 2]},{30 + i if i else ''}"
        for i in range(6)
    ]
    layout = lay_out(*FLAT, tables={"meta.csv": "\n".join(["Image Index,Diagnosis,PatientID,Split,Sex,Age", *rows])})
    last = layout.files[5]
    assert (last.label, last.split, last.patient, last.subgroups) == ("b", "test", "P2", {"sex": "M", "age": "35"})
    assert layout.files[0].subgroups["age"] == ""


def test_great_ages_in_a_table(lay_out):
    """Ages above 89 are 90 in what is kept, and a column that can be no subgroup is said."""
    table = "image,label,age,side\n" + "".join(f"{i}.png,{'ab'[i % 2]},{88 + i},L\n" for i in range(6))
    layout = lay_out(*FLAT, tables={"labels.csv": table})
    assert [file.subgroups for file in layout.files] == [{"age": a} for a in ("88", "89", "90", "90", "90", "90")]
    assert any("side would be called" in said for said in layout.evidence)


def test_table_without_labels_joins_class_folders(lay_out):
    """A table of patients and ages beside class folders adds to what the folders say."""
    table = "filename,patient_id,age\n" + "".join(f"{c}{i}.png,{c}{i // 2},{i}\n" for c in "ab" for i in range(4))
    layout = lay_out(*[f"{c}/{c}{i}.png" for c in "ab" for i in range(4)], tables={"patients.csv": table})
    assert layout.kind == "class folders"
    assert [(file.label, file.patient) for file in layout.files[2:5]] == [("a", "a1"), ("a", "a1"), ("b", "b0")]


def test_table_that_contradicts_the_folders(lay_out, tmp_path):
    """A table that was only found may not overrule class folders; one that is given does."""
    names = [f"{c}/{c}{i}.png" for c in "ab" for i in range(3)]
    table = "image,label\n" + "".join(f"{name[2:]},{'a' if '0' in name else name[0]}\n" for name in names)
    with pytest.raises(DataInvalid, match=r"has class folders \(a, b\) and labels.csv.*Give dataset.labels"):
        lay_out(*names, tables={"labels.csv": table})
    assert seen(lay_out(*names, labels=tmp_path / "d" / "labels.csv"))["b/b0.png"] == ("a", "")


def test_table_of_numbers_that_contradicts_the_folders(lay_out):
    """The same holds for a table that calls the classes 0 and 1; one of parts, each with all classes, decides."""
    names = [f"{c}/{c}{i}.png" for c in ("no", "yes") for i in range(20)]
    table = "image,label\n" + "".join(f"{n},{int(n.startswith('yes') != n.endswith('s7.png'))}\n" for n in names)
    with pytest.raises(DataInvalid, match="gives some images another label"):
        lay_out(*names, tables={"labels.csv": table})
    mixed = "image,label\n" + "".join(f"{n},{i % 3}\n" for i, n in enumerate(names))
    assert {label for label, _ in seen(lay_out(*names, tables={"labels.csv": mixed})).values()} == {"0", "1", "2"}


def test_table_that_can_not_be_read(lay_out, tmp_path):
    """A table that is no UTF-8 is named where nothing else tells the classes, and beside class folders is said."""
    for folder, names in (("d", FLAT), ("e", [f"{'ab'[i % 2]}/{i}.png" for i in range(6)])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "labels.csv").write_bytes("image,label\n0.png,Übergang\n".encode("latin-1"))
        if folder == "d":
            with pytest.raises(DataInvalid, match=r"labels.csv is not UTF-8 in line 2"):
                lay_out(*names)
    (tmp_path / "d").rename(tmp_path / "old")
    (tmp_path / "e").rename(tmp_path / "d")
    assert "Not used" in lay_out(*names).evidence[0]


def test_table_without_a_known_label(lay_out):
    """A table that names the images but not their label is asked about, with its columns."""
    table = "file,opacity\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(6))
    with pytest.raises(DataInvalid, match=r"file, opacity\. Say which it is: dataset\.columns\.label"):
        lay_out(*FLAT, tables={"t.csv": table})
    assert seen(lay_out(*FLAT, columns={"label": "opacity"}))["1.png"] == ("1", "")


def test_table_for_one_folder(lay_out):
    """The same where all images lie in one folder, which could pass for a single class."""
    table = "file,opacity\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(6))
    with pytest.raises(DataInvalid, match=r"dataset\.columns\.label"):
        lay_out(*[f"scans/{name}" for name in FLAT], tables={"t.csv": table})


def test_two_tables(lay_out):
    """Of two tables that name the images none is chosen."""
    with pytest.raises(DataInvalid, match=r"a.csv and b.csv each name the images.*dataset.labels"):
        lay_out(*FLAT, tables={"a.csv": TABLE, "b.csv": TABLE})


def test_a_table_for_each_split(lay_out):
    """Tables of one header that are called as splits are one table, whose split is their name."""
    rows = TABLE.splitlines(keepends=True)
    layout = lay_out(*FLAT, tables={"train.csv": "".join(rows[:5]), "test_labels.csv": "".join([rows[0], *rows[5:]])})
    assert [layout.files[i].split for i in (0, 3, 4, 5)] == ["train", "train", "test", "test"]
    assert [file.label for file in layout.files] == list("ababab")


def test_tables_that_complete_each_other(lay_out):
    """A table is not taken alone where another, of other columns, names images that it lacks."""
    rows = TABLE.splitlines(keepends=True)
    tables = {"train.csv": "".join(rows[:5]), "test.csv": "image\n4.png\n5.png\n"}
    with pytest.raises(DataInvalid, match=r"test.csv names 2 images that train.csv does not.*dataset\.labels"):
        lay_out(*FLAT, tables=tables)


def test_table_beside_the_one_of_labels(lay_out):
    """A table that names no other images stands in no way."""
    assert lay_out(*FLAT, tables={"labels.csv": TABLE, "few.csv": "image,x\n0.png,1\n"}).table.name == "labels.csv"


def test_what_does_not_match_is_counted(lay_out, tmp_path):
    """Rows without image or label, repeated rows and images without a row are left out, and counted."""
    table = TABLE.replace("5.png,b\n", "") + "gone.png,a\n4.png,a\n"
    layout = lay_out(*FLAT, "x.png", tables={"labels.csv": table.replace("3.png,b", "3.png,")})
    assert sorted(seen(layout)) == ["0.png", "1.png", "2.png", "4.png"]
    assert left_out(layout) == {
        "rows of the table without their image": 1,
        "rows of the table without a label": 1,
        "rows that repeat another": 1,
        "images without a row, or a label, in the table": 3,
    }


def test_words_for_an_empty_label(lay_out):
    """NaN, NA and null in the column of labels are no classes, and counted; None could be one, and is refused."""
    table = TABLE.replace("3.png,b", "3.png,NaN").replace("4.png,a", "4.png,NA").replace("5.png,b", "5.png,null")
    layout = lay_out(*FLAT, tables={"labels.csv": table})
    assert {label for label, _ in seen(layout).values()} == {"a", "b"}
    assert left_out(layout)["rows of the table whose label is NaN, NA or null"] == 3
    with pytest.raises(DataInvalid, match="column label says None in 1 cells"):
        lay_out(*FLAT, tables={"labels.csv": TABLE.replace("3.png,b", "3.png,None")})


def test_split_folders_with_a_table(lay_out):
    """Labels from a table go with splits from folders."""
    names = [f"{s}/{i}.png" for s, numbers in (("train", "0123"), ("test", "45")) for i in numbers]
    assert seen(lay_out(*names, tables={"labels.csv": TABLE}))["test/5.png"] == ("b", "test")


def test_splits_that_contradict_each_other(lay_out):
    """A split column must agree with split folders; one folder for all, and a column for all images, is no conflict."""
    names = [f"{s}/{i}.png" for s, numbers in (("train", "0123"), ("test", "45")) for i in numbers]
    table = "image,label,split\n" + "".join(f"{i}.png,{'ab'[i % 2]},{'train' if i != 4 else 'val'}\n" for i in range(6))
    with pytest.raises(DataInvalid, match="2 of 6 images are in another split by their folder"):
        lay_out(*names, tables={"labels.csv": table})


def test_split_column_in_one_folder(lay_out):
    """A folder train around all images does not contradict the splits of the table; images without one do."""
    table = "image,label,split\n" + "".join(f"{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'val'}\n" for i in range(6))
    names = [f"train/{name}" for name in FLAT]
    assert seen(lay_out(*names, tables={"labels.csv": table}))["train/5.png"] == ("b", "val")
    with pytest.raises(DataInvalid, match="gives 1 of 6 images no split"):
        lay_out(*names, tables={"labels.csv": table.replace("5.png,b,val", "5.png,b,")})


def test_two_rows_of_one_image(lay_out):
    """Rows that call an image differently but say the same are one; with two patients they are refused."""
    table = TABLE.replace("label", "label,patient").replace("a\n", "a,p\n").replace("b\n", "b,q\n")
    layout = lay_out(*FLAT, tables={"labels.csv": table + "0,a,p\n"})
    assert left_out(layout) == {"rows that repeat another": 1}
    with pytest.raises(DataInvalid, match="two rows for 0, with p and z in patient"):
        lay_out(*FLAT, tables={"labels.csv": table + "0,a,z\n"})


def test_image_named_by_its_patient(lay_out):
    """The column of the images may be that of the patients too."""
    layout = lay_out(*FLAT, tables={"labels.csv": TABLE}, columns={"patient": "image"})
    assert layout.files[3].patient == "3.png"


def test_split_in_file_names(lay_out):
    """Splits that every file name holds are taken, and said."""
    names = [f"x_{s}_{i}.png" for s in ("train", "val", "test") for i in range(2)]
    layout = lay_out(*names, label_pattern=r"_(\d)\.")
    assert seen(layout)["x_val_1.png"] == ("1", "val")
    assert "Each file name holds its split: test 2, train 2, val 2." in layout.evidence


def test_split_in_some_file_names(lay_out):
    """A word that only some names hold, or a test alone, is no split."""
    assert {s for _, s in seen(lay_out("a/x_test_1.png", "a/x_train_1.png", "b/1.png")).values()} == {""}


def test_label_in_file_names(lay_out):
    """A pattern takes the label from the file name; what it does not match is counted."""
    layout = lay_out("cat_1.png", "dog_1.png", "readme.png", label_pattern=r"^([a-z]+)_")
    assert seen(layout) == {"cat_1.png": ("cat", ""), "dog_1.png": ("dog", "")}
    assert left_out(layout) == {"files without a label in their name": 1}


def test_label_pattern_that_matches_nothing(lay_out):
    """A pattern that finds no label is an error that shows names."""
    with pytest.raises(DataInvalid, match=r"matches none of the 6 files: 0\.png"):
        lay_out(*FLAT, label_pattern="(z)")


def write_dicom(path, **tags):
    """Write a small DICOM image."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (16, 16), dtype=np.uint8)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 16, 16, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_label_in_a_dicom_tag(tmp_path):
    """A tree of DICOM files is labelled by a tag, whatever its folders; files without it are counted."""
    for i in range(4):
        write_dicom(tmp_path / f"study{i}" / "IM0001", BodyPartExamined="CHEST" if i % 2 else "HEAD")
    write_dicom(tmp_path / "study9" / "IM0001")
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    layout = detect_layout(tmp_path, DatasetConfig(label_tag="BodyPartExamined"))
    assert layout.kind == "DICOM tag" and [file.label for file in layout.files] == ["HEAD", "CHEST"] * 2
    assert left_out(layout) == {"files without the tag of the label": 1}


def test_dicom_tree_with_a_table(tmp_path):
    """A tree of DICOM files is labelled by a table that names their paths, with or without folders before them."""
    for i in range(4):
        write_dicom(tmp_path / f"study{i}" / "1.2.840.dcm")
    rows = [f"C:\\export\\study{i}\\1.2.840,{'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "labels.csv").write_text("path,class\n" + "\n".join(rows))
    layout = detect_layout(tmp_path, DatasetConfig())
    assert [file.label for file in layout.files] == ["a", "b", "a", "b"]


def test_masks_are_left_out(lay_out):
    """Masks named as an image beside them, or in a folder of masks beside the images, are left out and counted."""
    masks = ["a/1_mask.png", "a/1_mask_1.png", "b/masks/3.png"]
    layout = lay_out("a/1.png", "a/2-seg.png", "b/images/3.png", "b/4_segmentation.png", *masks)
    assert sorted(seen(layout)) == ["a/1.png", "a/2-seg.png", "b/4_segmentation.png", "b/images/3.png"]
    assert left_out(layout) == {"masks of images beside them": 3}


def test_images_above_the_class_folders(lay_out):
    """A few images beside the class folders are left out and counted; many are no class folders any more."""
    assert left_out(lay_out("overview.png", "a/1.png", "b/1.png")) == {"images above the class folders": 1}
    with pytest.raises(DataInvalid, match="7 images lie above the class folders"):
        lay_out(*FLAT, "a/1.png", "b/1.png")


def test_linked_folders(lay_out, tmp_path, write_dataset):
    """Class folders that are links are followed, and a link to a folder above them ends."""
    elsewhere = write_dataset(tmp_path / "disk2", ["1.png"])
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b").symlink_to(elsewhere)
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    assert sorted(seen(lay_out("a/1.png"))) == ["a/1.png", "b/1.png"]


def test_name_that_is_no_utf8(tmp_path, write_dataset):
    """A file name in another encoding is refused with its bytes, and no stack trace."""
    write_dataset(tmp_path, ["a/1.png", "b/1.png"])
    with open(os.fsencode(tmp_path) + b"/a/M\xfcller.png", "wb") as file:
        file.write(b"x")
    with pytest.raises(DataInvalid, match=r"not UTF-8\. Rename"):
        detect_layout(tmp_path, DatasetConfig())


def test_real_table(real_data):
    """DermaMNIST as images and a table: all labels, and the official split from the file names."""
    layout = detect_layout(real_data("derma28"), DatasetConfig())
    splits = pd.Series([file.split for file in layout.files]).value_counts().to_dict()
    assert layout.kind == "table" and splits == {"train": 7007, "val": 1003, "test": 2005}
    assert len({file.label for file in layout.files}) == 7 and layout.columns.patient is None
