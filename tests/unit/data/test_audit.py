"""Each finding appears with its count, and only when there is something to find."""

import dataclasses

import numpy as np
import pytest

from medvision.config import DatasetConfig
from medvision.data.audit import audit, render_text
from medvision.data.split import make_split
from medvision.records import Audit, load_record, save_record


def audit_of(manifest, **options):
    return audit("sample", manifest, make_split(manifest, DatasetConfig(**options)))


def found(record):
    return {finding.name: (finding.count, finding.total) for finding in record.findings}


def test_clean_dataset(manifest_of):
    """A clean dataset has no findings, and the text says so."""
    record = audit_of(manifest_of([0, 1] * 100))
    assert record.findings == () and record.n_dropped == 0 and record.n_patients is None
    assert "Nothing found." in render_text(record) and "patients unknown" in render_text(record)


def test_counts(manifest_of):
    """Images, patients, and the classes of each side are counted."""
    manifest = manifest_of([0, 1] * 100, patients=[f"p{i // 4}" if i < 120 else "" for i in range(200)])
    record = audit_of(manifest)
    assert record.n_images == 200 and record.n_patients == 30
    assert sum(sum(counts.values()) for counts in record.split_counts.values()) == 200
    assert record.manifest_fingerprint == manifest.fingerprint
    assert "of 30 patients" in render_text(record)


def test_unreadable(manifest_of):
    """Unreadable files are counted out of all files, with id and reason; the console shows the path."""
    record = audit_of(manifest_of([0, 1] * 49, rejected=[("a/1.png", "empty"), ("a/2.png", "cut off")]))
    assert found(record) == {"unreadable": (2, 100)}
    assert record.findings[0].examples == ("rejected0: empty", "rejected1: cut off")
    assert "a/1.png: empty" in render_text(record, {"rejected0": "a/1.png"})
    assert "a/1.png" not in render_text(record)


def test_not_used(manifest_of):
    """Files and rows that are no images of the dataset are counted by reason."""
    manifest = dataclasses.replace(manifest_of([0, 1] * 48), left_out=(("masks", 3), ("rows without an image", 1)))
    record = audit_of(manifest)
    assert found(record) == {"not_used": (4, 100)}
    assert record.findings[0].message == "Not used: 3 masks, 1 rows without an image."


def test_patient_unknown(manifest_of):
    """Images without a patient are counted where a pattern was asked for, and only there."""
    patients = [f"p{i}" for i in range(97)] + [""] * 3
    assert found(audit_of(manifest_of([0, 1] * 50, patients=patients))) == {"patient_unknown": (3, 100)}
    assert found(audit_of(manifest_of([0, 1] * 50))) == {}


def test_leaks(manifest_of):
    """Leaks are counted by side and kind, of the images of that side, with what was done."""
    given = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    patients = [f"p{i}" for i in range(20)]
    patients[16], patients[12] = "p0", "p3"
    pixels = [str(i) for i in range(20)]
    pixels[17] = "1"
    record = audit_of(manifest_of([0, 1] * 10, patients=patients, pixels=pixels, given=given))
    assert found(record) == {
        "test_in_train_by_patient": (1, 4),
        "test_in_train_by_pixels": (1, 4),
        "val_in_train_by_patient": (1, 4),
        "repeated": (1, 20),
    }
    assert record.n_dropped == 3
    assert record.findings[0].action == "3 leaking train and val rows are left out."
    assert "1 of 4 test images (25%) have their patient in train" in render_text(record)


def test_regrouped_is_said(manifest_of):
    """Where the dataset was split anew, the action says so."""
    manifest = manifest_of([0, 1] * 50, patients=[f"p{i // 4}" for i in range(100)], given=["train", "test"] * 50)
    record = audit_of(manifest, on_leak="regroup")
    assert {finding.action for finding in record.findings} == {"The whole dataset was split anew."}


def test_carved_is_not_regrouped(manifest_of):
    """A leaking dataset without test folder, whose test was made from train, was not split anew."""
    patients = [f"p{i}" for i in range(100)]
    patients[80] = "p0"
    record = audit_of(manifest_of([0, 1] * 50, patients=patients, given=["train"] * 80 + ["val"] * 20))
    assert found(record) == {"val_in_train_by_patient": (1, 20)}
    assert record.findings[0].action == "1 leaking train and val rows are left out."


def test_repeated_and_conflicting(manifest_of):
    """Repeats are counted beyond the first; images of two labels are counted all, and left out."""
    pixels = [str(i) for i in range(100)]
    pixels[4] = pixels[2] = pixels[0]
    pixels[11] = pixels[10]
    record = audit_of(manifest_of([0, 1] * 50, pixels=pixels))
    assert found(record) == {"repeated": (3, 100), "conflicting_labels": (2, 100)}
    assert record.n_dropped == 2


@pytest.mark.parametrize(("rare", "is_found"), [(100, False), (30, False), (10, True)])
def test_imbalance(manifest_of, rare, is_found):
    """A class five times rarer than another is pointed out."""
    record = audit_of(manifest_of(np.repeat([0, 1], [100, rare])))
    assert ("imbalance" in found(record)) == is_found


def test_record_survives_json(manifest_of, tmp_path):
    """The audit is the same after it was saved and loaded."""
    record = audit_of(manifest_of([0, 1] * 49, rejected=[("a/1.png", "empty")]))
    save_record(record, tmp_path / "audit.json")
    assert load_record(Audit, tmp_path / "audit.json") == record
