"""Tables are read whole or refused, and their columns are found by name, or asked for."""

import pytest

from medvision.config import ColumnsConfig, DatasetConfig
from medvision.data.columns import as_values, coarsen_age, find_columns
from medvision.data.layout import detect_layout
from medvision.data.tables import ImageIndex, read_table
from medvision.errors import DataInvalid


@pytest.fixture
def table(tmp_path):
    """Write a table and read it."""

    def write_and_read(content, name="t.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(tmp_path / name)

    return write_and_read


@pytest.fixture
def columns(table):
    """Find the columns of a table about images 0.png to 5.png."""
    index = ImageIndex(f"d/{i}.png" for i in range(6))

    def find(header, row="{i}.png,{c}", **given):
        rows = [row.format(i=i, c="ab"[i % 2], p=i // 2) for i in range(6)]
        return find_columns(table("\n".join([header, *rows])), ColumnsConfig(**given), index)

    return find


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("image,label\n1.png,ä\n", "t.csv"),
        ("\ufeffimage;label\n1.png;ä\n", "t.csv"),
        ("image\tlabel\r\n1.png\tä\r\n\r\n", "t.tsv"),
        ('"image","label"\n"1.png","ä"', "t.csv"),
        ("image|label\n 1.png | ä ", "t.CSV"),
        ("image,label\n1.png,ä\n".encode("utf-16"), "t.csv"),
    ],
)
def test_spellings_of_a_table(table, content, name):
    """Delimiters, quotes, line ends and byte order marks make no difference."""
    assert table(content, name).rows.to_dict("list") == {"image": ["1.png"], "label": ["ä"]}


def test_cells_stay_as_they_are(table):
    """Leading zeros, NA and quoted delimiters and line breaks are text."""
    assert table('id,text\n007,NA\n008,"a,\nb"\n').rows.to_dict("list") == {
        "id": ["007", "008"],
        "text": ["NA", "a,\nb"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label\n1.png,ä\n".encode("latin-1"), "not UTF-8 in line 2.*Save it as UTF-8"),
        ("image,label\n1.png,a,b\n", "row 2 has 3 cells, the header 2"),
        ("image,label\n1.png\n", "row 2 has 1 cells"),
        ("image,image\n1.png,a\n", "names image twice"),
        ("image,,x\n1.png,a,b\n", "without a name"),
        ("image,label\n", "no rows"),
        ("", "is empty"),
        ('image,label\n"1.png,a\n', "not a table"),
        (b"PK\x03\x04\0\0\0\0", "null characters"),
    ],
)
def test_refused_tables(table, content, message):
    """What is no table of one line an image is refused with the place."""
    with pytest.raises(DataInvalid, match=message):
        table(content)


def test_damaged_parquet(table):
    """A file that only says that it is Parquet is refused."""
    with pytest.raises(DataInvalid, match="not a Parquet file"):
        table("PAR1", "t.parquet")


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("train/1.png", "train/1.png"),
        ("train/1", "train/1.png"),
        ("./train/1.jpg", "train/1.png"),
        ("/home/me/data/test/1.png", "test/1.png"),
        ("test\\1.png", "test/1.png"),
        ("1.2.840.113", "dicom/1.2.840.113.dcm"),
        ("1.2.840.99", None),
        ("scan", "vol/scan.nii.gz"),
        ("train", None),
        ("", None),
    ],
)
def test_what_a_cell_stands_for(cell, path):
    """Images are found by path, the end of it, or name, with or without suffix."""
    index = ImageIndex(["train/1.png", "test/1.png", "dicom/1.2.840.113.dcm", "vol/scan.nii.gz"])
    assert index.find(cell) == ({path} if path else set())


def test_a_name_of_two_files():
    """A bare name that two folders have stands for both."""
    assert ImageIndex(["train/1.png", "test/1.png"]).find("1.png") == {"train/1.png", "test/1.png"}


@pytest.mark.parametrize(
    ("images", "cells", "found"),
    [
        (["b/0.png", "b/1.png"], ["a/0.png", "b/1.png"], [None, "b/1.png"]),
        (["a/0.png", "b/1.png"], ["a/0.png", "a/1.png"], ["a/0.png", None]),
        (["train/1.png"], ["/x/train/1.png", "/x/test/1.png"], ["train/1.png", None]),
        (["b/0.png"], ["/x/y/b/0.png", "/x/y/b/1.png"], ["b/0.png", None]),
        (["flat/0.png", "flat/1.png"], ["p1/0.png", "p2/1.png"], ["flat/0.png", "flat/1.png"]),
        (["0.png", "1.png"], ["/x/p1/0.png", "/x/p2/1.png"], ["0.png", "1.png"]),
        (["0.png", "1.png"], ["p1/0.png", "p2/0", "p2/1.png", "p2/1"], [None, None, "1.png", "1.png"]),
    ],
)
def test_images_of_another_folder(images, cells, found):
    """A cell of a folder that was not downloaded stands for no image of another; folders that say nothing do."""
    assert ImageIndex(images).find_all(cells) == [{path} if path else set() for path in found]


@pytest.mark.parametrize(
    ("header", "image", "label"),
    [
        ("image_id,dx", "image_id", "dx"),
        ("File Name,Finding Labels", "File Name", "Finding Labels"),
        ("img,target", "img", "target"),
    ],
)
def test_columns_by_name(columns, header, image, label):
    """Columns are known by any of their usual names."""
    found = columns(header)
    assert (found.image, found.label) == (image, label)


def test_image_column_by_content(columns):
    """A column with an unknown name is the image's if its cells name the images."""
    assert columns("slika,label").image == "slika"


def test_no_header(columns):
    """A table whose first line is an image's is refused."""
    with pytest.raises(DataInvalid, match="has no header"):
        columns("0.png,a", row="{i}.png,{c}")


def test_numbers_with_their_words(columns):
    """Of two columns that say the same, the one in words names the classes."""
    assert columns("image,label,label_name", row="{i}.png,0{p},c{p}").label == "label_name"


def test_two_labels(columns):
    """Of two columns that say different things none is chosen; the setting decides."""
    with pytest.raises(DataInvalid, match=r"diagnosis and target could each be the label.*dataset\.columns\.label"):
        columns("image,diagnosis,target", row="{i}.png,{c},{p}")
    assert columns("image,diagnosis,target", row="{i}.png,{c},{p}", label="target").label == "target"


def test_column_that_is_not_there(columns):
    """A given column that is not there is named with the nearest."""
    with pytest.raises(DataInvalid, match=r"no column 'lable'\. Did you mean 'label'"):
        columns("image,label", label="lable")


@pytest.mark.parametrize("name", ["lesion_id", "case_id", "StudyInstanceUID", "accession", "eye_id"])
def test_like_a_patient(columns, name):
    """A column that is only like a patient is never taken, and kept for a suggestion."""
    found = columns(f"image,label,{name}", row="{i}.png,{c},{p}")
    assert found.patient is None and found.like_patient == (name,)


def test_patient_by_name(columns):
    """A column that says that it is the patient is taken."""
    assert columns("image,label,Patient ID", row="{i}.png,{c},{p}").patient == "Patient ID"


def test_folds_are_no_split(columns):
    """Numbers of folds are no split; words are."""
    assert columns("image,label,fold", row="{i}.png,{c},{p}").split is None
    assert columns("image,label,set", row="{i}.png,{c},train").split == "set"


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        ("image,label,patient_id", "patient_id", "names images or patients"),
        ("image,label,date_of_birth", "date_of_birth", "names images or patients"),
        ("image,label,Width", "Width", "which the manifest has already"),
        ("image,label,x", "image", "names images or patients"),
    ],
)
def test_refused_subgroups(columns, header, given, message):
    """No subgroup names a person, or takes the name of a column of the manifest."""
    with pytest.raises(DataInvalid, match=message):
        columns(header, row="{i}.png,{c},{p}", subgroups=[given])


def test_subgroup_of_one_image_each(table):
    """A column with another text for each image names images, whatever it is called."""
    found = table("image,label,remark\n" + "".join(f"{i}.png,{i % 2},text {i}\n" for i in range(30)))
    index = ImageIndex(f"{i}.png" for i in range(30))
    with pytest.raises(DataInvalid, match="names images or patients"):
        find_columns(found, ColumnsConfig(subgroups=("remark",)), index)


@pytest.mark.parametrize(
    ("header", "given", "unfit"),
    [
        ("image,label,side", {}, ["side would be called 'side', which the manifest has already"]),
        ("image,view,label", {"label": "view"}, []),
        ("image,label,site", {"patient": "site"}, []),
    ],
)
def test_found_subgroups_are_checked(columns, header, given, unfit):
    """A column called like a subgroup is none where it is another thing already, or would take a name; that is said."""
    found = columns(header, row="{i}.png,{c},{p}", **given)
    assert found.subgroups == () and len(found.unfit) == len(unfit)
    assert all(part in said for part, said in zip(unfit, found.unfit, strict=True))


def test_found_subgroup_of_one_image_each(table):
    """A found column with another text for each image is left out, and said."""
    found = table("image,label,site,sex\n" + "".join(f"{i}.png,{i % 2},Mr {i},{'FM'[i % 2]}\n" for i in range(30)))
    columns = find_columns(found, ColumnsConfig(), ImageIndex(f"{i}.png" for i in range(30)))
    assert columns.subgroups == ("sex",) and "site names images or patients" in columns.unfit[0]


def test_subgroup_with_name_in_its_name(columns):
    """The name of a scanner's model is no person's."""
    header = "image,label,ManufacturerModelName"
    assert columns(header, row="{i}.png,{c},{p}", subgroups=["ManufacturerModelName"]).subgroups


@pytest.mark.parametrize(
    ("name", "cell", "coarse"),
    [
        ("age", "89", "89"),
        ("Patient Age", "93", "90"),
        ("age_approx", "101.5", "90"),
        ("PatientAge", "093Y", "90"),
        ("age", "093M", "093M"),
        ("age_group", "60-70", "60-70"),
        ("image", "101", "101"),
        ("dosage", "101", "101"),
    ],
)
def test_ages_above_89(name, cell, coarse):
    """Great ages tell who a person is: they become 90, as those of DICOM files do."""
    assert coarsen_age(name, cell) == coarse


def test_subgroup_values():
    """Cells that are all numbers, or empty, become numbers; any other column stays text."""
    numbers = as_values(["1", "", "2.5"])
    assert numbers[0] == 1 and numbers[1] != numbers[1] and numbers[2] == 2.5
    assert as_values(["1", "", "old"]) == ["1", "", "old"] and as_values(["", ""]) == ["", ""]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0.png,a|b", "1.png,a"], "several labels in a cell"),
        ([f"{i}.png,{i}" for i in range(30)], "30 values for 30 images"),
        (["0.png,a", "0.png,b"], "two labels in label: a and b"),
    ],
)
def test_labels_that_mislead(tmp_path, write_dataset, rows, message):
    """Several labels in a cell, a label an image, and two labels of one image are refused."""
    root = write_dataset(tmp_path / "d", [f"{i}.png" for i in range(30)])
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    with pytest.raises(DataInvalid, match=message):
        detect_layout(root, DatasetConfig(labels=tmp_path / "t.csv"))
