"""Identifiers never leave the reader: a name that stands wherever a dataset can hold one is in nothing that is written.

It is searched in every byte below the project's folder: raw, in the members of archives, the cells of tables, the
values of databases, and the pictures within pages. Two places may have it: files.csv, which is there to say which file
an image is and which its owner alone can read, and the answers that a person has asked to be written.
"""

import base64
import gzip
import io
import re
import sqlite3
import stat
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from medical_files import write_dicom, write_nifti
from PIL import Image, PngImagePlugin, TiffImagePlugin

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

import layouts
from layouts import slices, write_bytes
from medvision_project import Project

CANARY = "CANARY-JANE-DOE"
# In any case, with what may stand in place of a dash, and as Windows writes it.
_TEXT = re.compile(rb"jane[-_ ^.+]?doe|jane%2ddoe", re.IGNORECASE)
_WIDE = re.compile("jane-doe".encode("utf-16-le"), re.IGNORECASE)
_EMBEDDED = re.compile(rb"base64,([A-Za-z0-9+/=]{40,})")
_PNG_END = b"IEND\xaeB`\x82"
ALLOWED = re.compile(r"\.medvision/datasets/[^/]+/files\.csv|answers\.csv")


def make_ward(root):
    """Write images of each format with the canary in all that is not a pixel, and a table that names patients."""
    writers = (_dicom, _png, _jpeg, _tiff, _nifti)
    rows = []
    for number, each in enumerate(slices()):
        suffix, content = writers[number // 2 % len(writers)](each.pixels, f"{CANARY}-{each.patient}")
        name = f"{CANARY}-ward/{CANARY}_{each.patient}_{each.number}.{suffix}"
        write_bytes(root, name, content)
        patient = "" if suffix == "dcm" else f"{CANARY} {each.patient}"
        rows.append((name, each.label, patient, "FM"[each.patient // 2 % 2], f"seen by {CANARY}", f"{CANARY} street"))
    # Left out as a mask, rejected, a copy, and one that the table does not know.
    first = slices()[2]
    write_bytes(root, f"{CANARY}-ward/{CANARY}_{first.patient}_1_mask.png", _png(first.pixels, CANARY)[1])
    write_bytes(root, f"{CANARY}-ward/{CANARY}-broken.png", CANARY.encode() + bytes(99))
    rows.append((f"{CANARY}-ward/{CANARY}-broken.png", first.label, f"{CANARY} 99", "F", "", ""))
    write_bytes(root, f"{CANARY}-ward/{CANARY}-copy.png", _png(first.pixels, CANARY)[1])
    rows.append((f"{CANARY}-ward/{CANARY}-copy.png", slices()[-1].label, f"{CANARY} 98", "F", "", ""))
    write_bytes(root, f"{CANARY}-ward/{CANARY}-unknown.png", _png(255 - first.pixels, CANARY)[1])
    layouts.write_table(root / "labels.csv", ("file", "label", "patient_id", "sex", "comment", "address"), rows)


def _dicom(pixels, canary):
    attributes = dict.fromkeys(
        ("PatientID", "PatientName", "PatientComments", "StudyDescription", "ReferringPhysicianName", "OtherPatientIDs",
         "InstitutionName", "ImageComments", "PatientAddress", "ProtocolName", "DeviceSerialNumber"), canary,
    )  # fmt: skip
    content = write_dicom(pixels, **attributes)
    # The preamble is free for anything.
    return "dcm", canary.encode().ljust(128, b"\0") + content[128:]


def _png(pixels, canary):
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", canary)
    info.add_text("Packed", canary, zip=True)
    info.add_itxt("Comment", canary, "en", canary)
    return "png", _save(pixels, "PNG", pnginfo=info, exif=_exif(canary))


def _jpeg(pixels, canary):
    return "jpg", _save(pixels, "JPEG", comment=canary, exif=_exif(canary), quality=95)


def _tiff(pixels, canary):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number in (270, 305, 315, 33432, 65000):  # description, software, artist, copyright, a private one
        tags[number] = canary
        tags.tagtype[number] = 2
    return "tif", _save(pixels, "TIFF", tiffinfo=tags)


def _nifti(pixels, canary):
    content = write_nifti(pixels[..., None].astype(np.int16), descrip=canary, aux_file=canary, intent_name=canary[:16])
    return "nii", content


def _exif(canary):
    exif = Image.Exif()
    for number in (270, 315, 33432):
        exif[number] = canary
    exif.get_ifd(0x8769)[0x9286] = canary
    return exif


def _save(pixels, form, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def find_canary(folder):
    """Return where the canary is below a folder: paths, each with what of the file has it."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _TEXT.search(name.encode()):
            found.append(f"{name} (its name)")
        if path.is_file() and not path.is_symlink() and not ALLOWED.fullmatch(name):
            found += [f"{name} ({where})" for where in _places(path.read_bytes(), path)]
    return found


def _places(content, path=None):
    """Yield in which layers of a file's content the canary is."""
    if _TEXT.search(content) or _WIDE.search(content):
        yield "its bytes"
    for layer, inner in _layers(content, path):
        yield from (f"{layer}: {where}" for where in _places(inner))


def _layers(content, path):
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            yield from ((member.filename, file.read(member)) for member in file.infolist())
            yield "comments", b"".join(member.comment + member.extra for member in file.infolist()) + file.comment
    if content.startswith(b"\x1f\x8b"):
        yield "gzip", gzip.decompress(content)
    if content.startswith(b"PAR1"):
        table = pq.read_table(io.BytesIO(content))
        yield "cells", pd.DataFrame(table.to_pydict()).to_csv().encode() + str(table.schema.metadata).encode()
    if content.startswith(b"SQLite format 3") and path is not None:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            yield "rows", "\n".join(database.iterdump()).encode("utf-8", "replace")
    if content.startswith(b"\x89PNG") and content.endswith(_PNG_END):
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            yield "texts", str(image.info).encode()
    for number, match in enumerate(_EMBEDDED.finditer(content)):
        yield f"picture {number}", base64.b64decode(match[1])


@pytest.fixture
def ward(tmp_path):
    """Return a project, and beside it a dataset that is full of the canary."""
    folder = tmp_path / "project"
    folder.mkdir()
    make_ward(tmp_path / "ward")
    return Project(folder)


ALLOW_BROKEN = "dataset.max_rejected_fraction=0.05"
FEW = "training.epochs=8 training.lr=3e-3 evaluation.replicates=100"


def bring_in(project, run):
    """Adapt the dataset; return its arguments' outcome."""
    options = ("--pretrained", "false", "--set", f"{ALLOW_BROKEN} {FEW}")
    return run("adapt", "--dataset-path", str(project.folder.parent / "ward"), *options)


def test_the_search_finds_it(tmp_path):
    """The canary is found where it is raw, packed, in a table, in a database, or in a picture within a page."""
    _, png = _png(np.zeros((8, 8), np.uint8), CANARY)
    (tmp_path / "raw.txt").write_text(CANARY.lower())
    (tmp_path / "page.html").write_text(f"<img src='data:image/png;base64,{base64.b64encode(png).decode()}'>")
    pd.DataFrame({"a": [CANARY] * 100}).to_parquet(tmp_path / "table.parquet", compression="gzip")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", CANARY * 9)
    (tmp_path / "text.gz").write_bytes(gzip.compress(CANARY.encode() * 9))
    with sqlite3.connect(tmp_path / "rows.db") as database:
        database.execute("create table t (a text)")
        database.execute("insert into t values (?)", ("x" * 5000 + CANARY,))
    found = {place.partition(" ")[0] for place in find_canary(tmp_path)}
    assert found == {"raw.txt", "page.html", "table.parquet", "packed.zip", "text.gz", "rows.db"}


def test_adapt(ward):
    """Bringing a dataset in writes no name of a file, a patient, or anything that the files say of them."""
    outcome = bring_in(ward, ward.call)
    assert outcome.code == 0, outcome.err
    assert "1 masks" in outcome.out and "1 of 62 files are not readable" in outcome.out
    assert find_canary(ward.folder) == []
    (names,) = (ward.folder / ".medvision" / "datasets").glob("*/files.csv")
    assert CANARY in names.read_text() and stat.S_IMODE(names.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--num-classes", "3"), "Expected 3 classes"),
        ((), "1 of 62 files are not readable images"),
        (("--patient-pattern", "(nobody)"), "matches none"),
        (("--label-tag", "PatientName"), "may name a person"),
        (("--set", "dataset.columns.label=patient_id"), "those are no classes"),
    ],
)
def test_a_refusal(ward, options, said):
    """What is refused is named on the console alone: the run that failed keeps no name of it."""
    refused = ("--set", ALLOW_BROKEN, *options) if options else ()
    outcome = ward.call("adapt", "--dataset-path", str(ward.folder.parent / "ward"), *refused)
    assert outcome.code in {2, 5} and said in outcome.err, outcome
    assert find_canary(ward.folder) == []


@pytest.mark.slow
def test_the_whole_life_of_a_model(ward):
    """Nothing that any step records has it: runs, W&B, TensorBoard, packages, cards, evidence, ledgers and logs."""
    root = ward.folder.parent / "ward"
    name = ("--dataset", "ward")
    steps = (
        ("audit", *name),
        ("train", *name),
        ("evaluate", *name, "--detailed"),
        ("validate", *name, "--policy", "lenient"),
        ("register", *name),
        ("evidence", "ward-simple_cnn/1"),
        ("predict", "ward-simple_cnn/1", str(root / f"{CANARY}-ward"), "--out", "answers.csv"),
        ("verify", *name),
    )
    outcome = bring_in(ward, lambda *arguments: ward.run("medvision", *arguments))
    assert outcome.code == 0, outcome.err
    for step in steps:
        outcome = ward.run("medvision", *step)
        # Of the folder one file is no image: the others are answered.
        assert outcome.code == (5 if step[0] == "predict" else 0), (step, outcome)
    written = {path.name for path in ward.folder.rglob("*")}
    assert {
        "model_card.md",
        "ward-simple_cnn-1.0.0.zip",
        "predictions.parquet",
        "audit_report.html",
        "wandb",
        "runs",
        "answers.csv",
    } <= written
    assert CANARY in (ward.folder / "answers.csv").read_text()
    assert find_canary(ward.folder) == []
