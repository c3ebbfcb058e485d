"""File names may name patients: they stand in no file that is written, but for one that its owner alone can read."""

import csv
import stat

import pytest

from medvision.data.audit import audit, render_text
from medvision.data.manifest import load_or_build_manifest
from medvision.data.saved_manifest import load_rows
from medvision.data.split import make_split, save_split
from medvision.records import save_record

CANARY = "CANARY-Anna-Smith"


def everything_about(config):
    """Build, split and audit a dataset as a step does, saving all records; return its manifest."""
    manifest = load_or_build_manifest(config)
    split = make_split(manifest, config.dataset)
    save_split(split, manifest, config.dataset_dir)
    record = audit("sample", manifest, split)
    save_record(record, config.dataset_dir / "audit.json")
    (config.dataset_dir / "audit.txt").write_text(render_text(record))
    return manifest


@pytest.fixture
def named(tmp_path, write_dataset, write_image, noise):
    """Write a dataset in whose names a patient stands wherever one can: copies, unreadable files, a table."""
    root = write_dataset(tmp_path / "d", [f"{c}/{CANARY}_{i}.png" for c in "ab" for i in range(6)])
    write_image(root / "a" / f"copy_of_{CANARY}.png", noise(0))
    write_image(root / "b" / f"other_{CANARY}.png", noise(0))
    (root / "a" / f"broken_{CANARY}.png").write_bytes(b"x")
    rows = [f"{c}/{CANARY}_{i}.png,{CANARY}-{i},{30 + i}" for c in "ab" for i in range(6)]
    (root / "meta.csv").write_text("\n".join(["image,patient,age", *rows]))
    return root


def test_no_name_in_what_is_written(named, settings, state):
    """No record of a dataset but files.csv holds any part of a file's name or a patient's identifier."""
    config = settings(named, state, dataset={"max_rejected_fraction": 0.5})
    for _ in range(2):
        manifest = everything_about(config)
    assert {finding.name for finding in audit("sample", manifest, make_split(manifest, config.dataset)).findings} >= {
        "unreadable", "repeated", "patient_unknown", "conflicting_labels"
    }  # fmt: skip
    written = {path.name: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert {"manifest.parquet", "split.parquet", "audit.json", "audit.txt"} < set(written)
    guilty = [name for name, content in written.items() if b"CANARY" in content or b"Smith" in content]
    assert guilty == ["files.csv"]


def test_files_csv(named, settings, state):
    """files.csv turns each id, of read and of rejected images, into a path; its owner alone can read it."""
    config = settings(named, state)
    manifest = load_or_build_manifest(config)
    path = config.dataset_dir / "files.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image_id"]: row["path"] for row in rows} == manifest.names() and len(rows) == 15
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_paths_come_from_the_folder(named, settings, state):
    """The saved manifest has no path in it; loaded, each row has that of its own file again."""
    config = settings(named, state)
    made = load_or_build_manifest(config)
    (config.dataset_dir / "files.csv").unlink()
    loaded = load_or_build_manifest(config)
    assert loaded is not made and loaded.rows.equals(made.rows) and loaded.rejected == made.rejected
    with pytest.raises(KeyError):
        load_rows(config.dataset_dir, {})


def test_reason_without_the_name(named, settings, state, monkeypatch):
    """A reason that quotes the file, as errors of the system do, is kept without it."""
    from medvision.data import inspection
    from medvision.errors import DecodeRejected

    def refuse(source):
        raise DecodeRejected(f"damaged image (Permission denied: '{source.file}', {source.file.name})")

    monkeypatch.setattr(inspection, "decode_image", refuse)
    image = inspection.inspect_file(named / "a" / f"{CANARY}_0.png", b"key").frames[0]
    assert image.reason == "damaged image (Permission denied: 'the file', the file)"
