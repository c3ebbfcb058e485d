"""Which files of a folder are images of which class and split, and which folders are refused with a clear error."""

import subprocess
import sys

import pytest

from medvision.config import DatasetConfig
from medvision.data.layout import detect_layout
from medvision.data.sources import SPLIT_SPELLINGS
from medvision.errors import DataInvalid


def list_images(root):
    return detect_layout(root, DatasetConfig()).files


@pytest.fixture
def listed(tmp_path, write_dataset):
    """Write a dataset and list it as {path: (class, split)}."""

    def write_and_list(*names):
        write_dataset(tmp_path, names)
        return {file.path: (file.label, file.split) for file in list_images(tmp_path)}

    return write_and_list


def test_class_folders(listed):
    """Each folder is a class; no split is given; files come sorted by path."""
    found = listed("b/2.png", "a/1.jpg", "b/1.bmp")
    assert list(found.items()) == [("a/1.jpg", ("a", "")), ("b/1.bmp", ("b", "")), ("b/2.png", ("b", ""))]


def test_nested_folders(listed):
    """Images below a class folder are of that class, however deep."""
    assert set(listed("a/site 1/x/1.png", "a/1.png", "b/y/1.png").values()) == {("a", ""), ("b", "")}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "valid", "Testing"),
        ("TRAIN", "Validation", "TEST"),
        ("training_set", "validation_set", "test_set"),
        ("Training Set", "dev", "tst"),
        ("train-set", "eval", "Testing-Set"),
    ],
)
def test_split_spellings(listed, train, val, test):
    """Split folders are known by any of their usual spellings."""
    found = listed(*(f"{folder}/{name}/1.png" for folder in (train, val, test) for name in "ab"))
    assert [found[f"{folder}/a/1.png"] for folder in (train, val, test)] == [("a", s) for s in SPLIT_SPELLINGS]


def test_what_is_no_image_is_left_out(listed, tmp_path):
    """Hidden files and folders, Thumbs.db, tables and notes are left out."""
    for name in ("a/.1.png", "a/.ipynb_checkpoints/1-checkpoint.png", ".git/x.png", "__MACOSX/._1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "b").mkdir()
    for name in ("Thumbs.db", "desktop.ini", "labels.csv", "README.txt", "meta.JSON"):
        (tmp_path / "b" / name).write_text("x")
    assert set(listed("a/1.png", "b/1.png")) == {"a/1.png", "b/1.png"}


def test_files_of_unknown_kind_are_tried(listed, tmp_path):
    """A file without a known suffix is listed, so that it is read or named, never left out in silence."""
    listed("a/1.png", "b/1.png")
    (tmp_path / "a" / "scan").write_bytes(b"?")
    assert "a/scan" in {file.path for file in list_images(tmp_path)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "No images .*CLASS/IMAGE"),
        (["1.png", "2.png"], "No images in class folders.*CLASS/IMAGE"),
        (["a/1.png", "a/2.png"], "Only one class was found: a"),
        (["train/a/1.png", "val/a/1.png"], "Only one class was found: a"),
        (["Glioma/1.png", "glioma/1.png", "none/1.png"], "Glioma and glioma differ by case only"),
        (["train/a/1.png", "train/b/1.png", "test/A/1.png"], "A and a differ by case only"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "Class c has images in test but none in train"),
        (["val/a/1.png", "test/b/1.png"], "no train folder"),
        (["train/a/1.png", "training/b/1.png"], "both look like the train split"),
        (["train/a/1.png", "train/b/1.png", "c/1.png"], r"beside others with images \(c\)"),
    ],
)
def test_refused(listed, names, message):
    """A folder that can't be meant is refused, saying what was found."""
    with pytest.raises(DataInvalid, match=message):
        listed(*names)


def test_empty_class_folder_is_refused(listed, tmp_path):
    """A class folder without any file is named: the model would never know that class."""
    (tmp_path / "c").mkdir()
    with pytest.raises(DataInvalid, match=r"/c is empty"):
        listed("a/1.png", "b/1.png")


def test_links_to_nothing(listed, tmp_path):
    """Images that are links to what is not there are counted; a class of which nothing else is left is refused."""
    listed("a/1.png", "b/1.png")
    (tmp_path / "b" / "2.png").symlink_to(tmp_path / "gone.png")
    assert detect_layout(tmp_path, DatasetConfig()).left_out == (("links to what is not there", 1),)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataInvalid, match=r"Class folder \S*/c is empty, or has links"):
        list_images(tmp_path)
    (tmp_path / "c" / "1.png").unlink()
    (tmp_path / "c").rmdir()
    (tmp_path / "d").symlink_to(tmp_path / "gone")
    with pytest.raises(DataInvalid, match=r"Class folder \S*/d is empty, or has links"):
        list_images(tmp_path)


@pytest.mark.parametrize("names", [("z", "c"), ("c", "z")])
def test_links_to_one_folder(listed, tmp_path, write_dataset, names):
    """Of a folder and a link to it the folder is read, of two links the first by name; the other is counted."""
    listed("b/1.png", "a/1.png")
    (tmp_path / "0").symlink_to(tmp_path / "b")
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    write_dataset(elsewhere, ["x.png"])
    for name in names:
        (tmp_path / name).symlink_to(elsewhere)
    layout = detect_layout(tmp_path, DatasetConfig())
    assert [file.path for file in layout.files] == ["a/1.png", "b/1.png", "c/x.png"]
    assert layout.left_out == (("links to a folder that is there already", 2),)


_CHILD = """
import os, sys
from pathlib import Path
from medvision.data.sources import find_files
from medvision.errors import DataInvalid
os.setuid(65534) if os.getuid() == 0 else None
try:
    find_files(Path("."))
except DataInvalid as error:
    print(error)
"""


def test_folder_that_can_not_be_listed(listed, tmp_path):
    """A folder without the right to read it is named: its images would be left out in silence."""
    listed("a/1.png", "b/1.png")
    tmp_path.chmod(0o755)
    (tmp_path / "b").chmod(0)
    out = subprocess.run([sys.executable, "-c", _CHILD], cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / "b").chmod(0o755)
    assert "b can't be listed: Permission denied" in out.stdout


def test_real_folders(real_data):
    """The real datasets are listed whole, with their splits."""
    brain, chest, covid = (list_images(real_data(name)) for name in ("brain-mri", "chest-xray", "covid317"))
    assert (len(brain), len(chest), len(covid)) == (3264, 5856, 317)
    assert sum(file.split == "test" for file in brain) == 394
    assert sum(file.split == "val" for file in chest) == 878
    assert {file.label for file in covid} == {"Covid", "Normal", "Viral Pneumonia"}
