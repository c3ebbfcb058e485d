"""Settings that are typed, or written by hand, mean what they say or are refused with the place."""

import shlex

import pytest

from medvision.config import parse_overrides
from medvision.data.patients import Suggestion
from medvision.errors import ConfigInvalid
from pipelines.dataset_file import read_dataset_file
from pipelines.options import split_assignments
from pipelines.patients import option


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (None, []),
        ([""], []),
        (["training.views=4 training.patience=20"], ["training.views=4", "training.patience=20"]),
        (["dataset.columns.label=BI RADS"], ["dataset.columns.label=BI RADS"]),
        (["dataset.window=a b  training.lr=1", "a=b"], ["dataset.window=a b", "training.lr=1", "a=b"]),
    ],
)
def test_blanks_in_values(texts, parts):
    """Assignments are told apart at blanks before a key, and keep those of their values."""
    assert split_assignments(texts) == parts


@pytest.mark.parametrize("value", ["BI RADS", "it's", "case_id"])
def test_option_of_a_suggestion(value):
    """The option that a suggestion names gives its column when it is typed into a shell."""
    suggestion = Suggestion("dataset.columns.patient", value, "", 1, 1, 1, {}, 0, 0, ())
    _, *assignments = shlex.split(option(suggestion))
    assert parse_overrides(split_assignments(assignments)) == {"dataset.columns.patient": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: plain", r"dataset: expected settings such as .* found 'plain'"),
        ("dataset: {path: 5}", r"dataset\.path: expected a folder, found 5"),
        ("dataset: {path: [x]}", r"dataset\.path: expected a folder"),
    ],
)
def test_settings_by_hand(tmp_path, monkeypatch, text, message):
    """A file of a dataset that says no place where one is expected is refused with the line's name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MLproject").touch()
    (tmp_path / "config" / "datasets").mkdir(parents=True)
    (tmp_path / "config" / "datasets" / "ward.yaml").write_text(text)
    with pytest.raises(ConfigInvalid, match=message):
        read_dataset_file("ward", tmp_path)
