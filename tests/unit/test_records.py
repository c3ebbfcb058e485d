"""Records survive their file, and a file of another shape is refused."""

import dataclasses
import json

import pytest

from medvision.errors import DataInvalid
from medvision.records import Audit, Finding, Normalization, load_record, record_fingerprint, save_record

NORMALIZATION = Normalization((0.5, 0.25, 1 / 3), (0.1, 0.2, 0.3), 10, 1000, "a" * 64)
FINDING = Finding("repeated", "note", 1, 10, "1 of 10", "kept", ("a/1.png",))
AUDIT = Audit("brain", "m", "s", 10, None, {"train": {"a": 7}, "val": {}, "test": {"a": 3}}, 0, (FINDING, FINDING))


@pytest.mark.parametrize("record", [NORMALIZATION, FINDING, AUDIT], ids=lambda record: type(record).__name__)
def test_round_trip(record, tmp_path):
    """A record is the same, type by type, after it was saved and loaded."""
    save_record(record, tmp_path / "record.json")
    loaded = load_record(type(record), tmp_path / "record.json")
    assert loaded == record and hash(str(loaded)) == hash(str(record))
    assert record_fingerprint(loaded) == record_fingerprint(record)


def test_frozen():
    """A record can't be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        NORMALIZATION.n_images = 3


def test_fingerprint_follows_the_content():
    """Any change of any field changes the fingerprint."""
    changed = dataclasses.replace(NORMALIZATION, n_pixels=1001)
    assert record_fingerprint(changed) != record_fingerprint(NORMALIZATION)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ([], ""),
        (3, ""),
        (None, ""),
        ({}, "mean"),
        ({**dataclasses.asdict(NORMALIZATION), "mean": "x"}, "mean"),
        ({**dataclasses.asdict(NORMALIZATION), "mean": [1, "x"]}, "mean.1"),
        ({**dataclasses.asdict(NORMALIZATION), "n_images": None}, "n_images"),
    ],
)
def test_wrong_shape(content, place, tmp_path):
    """A file of another shape is invalid data, with its path and the place."""
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(DataInvalid, match=f"record.json is not a Normalization.*{place}"):
        load_record(Normalization, tmp_path / "record.json")


def test_damaged_or_missing(tmp_path):
    """A damaged or missing file is invalid data that says to run the step again."""
    with pytest.raises(DataInvalid, match="Run the step"):
        load_record(Normalization, tmp_path / "gone.json")
    (tmp_path / "record.json").write_text('{"mean": [')
    with pytest.raises(DataInvalid, match="not valid JSON"):
        load_record(Normalization, tmp_path / "record.json")


def test_a_later_field_leaves_the_fingerprint_of_an_earlier_record():
    """A record that lacks a field keeps its fingerprint under a medvision that has it, at any depth."""

    @dataclasses.dataclass(frozen=True)
    class Before:
        name: str

    @dataclasses.dataclass(frozen=True)
    class After:
        name: str
        formats: tuple[str, ...] = ()

    @dataclasses.dataclass(frozen=True)
    class Holding:
        parts: tuple
        named: dict

    before, after = (Holding((kind("a"),), {"b": kind("b")}) for kind in (Before, After))
    assert record_fingerprint(after) == record_fingerprint(before)
    told = Holding((After("a", ("PNG",)),), {"b": After("b")})
    assert record_fingerprint(told) != record_fingerprint(before)
