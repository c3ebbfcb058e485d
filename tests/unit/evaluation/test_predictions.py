"""The table of predictions keeps what was put into it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medvision.errors import DataInvalid
from medvision.evaluation.predictions import Predictions, concatenate, load_predictions, save_predictions, select

CLASSES = ("glioma", "meningioma", "pituitary")


@pytest.fixture
def path(tmp_path, predictions):
    y_true, y_score = predictions(n=20)
    keys = [None if i == 3 else f"patient{i // 2}" for i in range(20)]
    table = Predictions(
        tuple(f"image{i}" for i in range(20)), tuple(keys), y_true, y_score, CLASSES, "digest", "test set"
    )
    save_predictions(tmp_path / "predictions.parquet", table)
    return tmp_path / "predictions.parquet"


def test_round_trip(path, predictions):
    """What was saved comes back bit by bit and in the same order."""
    y_true, y_score = predictions(n=20)
    loaded = load_predictions(path)
    np.testing.assert_array_equal(loaded.y_true, y_true)
    np.testing.assert_array_equal(loaded.y_score, y_score)
    np.testing.assert_array_equal(loaded.y_pred, y_score.argmax(axis=1))
    assert loaded.classes == CLASSES
    assert (loaded.package_digest, loaded.test_fingerprint) == ("digest", "test set")
    assert loaded.image_ids[:2] == ("image0", "image1")
    assert loaded.patient_keys[2:4] == ("patient1", None)


def test_columns(path):
    """Anyone can read the table: it is Parquet with a score column per class."""
    names = ["image_id", "patient_key", "y_true", "y_pred", *(f"score_{name}" for name in CLASSES)]
    assert list(pd.read_parquet(path).columns) == names


def test_evaluation_from_disk_is_the_same(path, predictions, evaluate):
    """Figures computed again from the table equal those computed from the scores."""
    loaded = load_predictions(path)
    assert evaluate(loaded.y_true, loaded.y_score) == evaluate(*predictions(n=20))


@pytest.mark.parametrize(
    ("keys", "groups"),
    [
        (["b", "a", "b"], [0, 1, 0]),
        (["b", None, "b", None, "a"], [0, 1, 0, 2, 3]),
        (["1", None, "1"], [0, 1, 0]),
        ([None, None], None),
    ],
    ids=["known", "some known", "a key like a number", "unknown"],
)
def test_groups(keys, groups):
    """Images of one patient share a code; an unknown patient is one of its own, unless all are unknown."""
    n = len(keys)
    table = Predictions(("image",) * n, tuple(keys), np.zeros(n, int), np.ones((n, 1)), ("a",))
    assert (None if table.groups is None else table.groups.tolist()) == groups


def test_same_predictions_give_the_same_bytes(path, tmp_path):
    """A table saved twice has one hash."""
    loaded = load_predictions(path)
    save_predictions(tmp_path / "again.parquet", loaded)
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign", "without_scores"])
def test_damaged_table(path, damage):
    """A table that is missing, damaged or of another kind is a DataInvalid that names the step to run."""
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "foreign":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    else:
        pd.read_parquet(path)[["image_id", "patient_key", "y_true"]].to_parquet(path)
    with pytest.raises(DataInvalid, match="Run evaluate"):
        load_predictions(path)


def test_scores_are_float64(path):
    """Scores are loaded as figures are computed: bins of float32 would have other edges."""
    assert load_predictions(path).y_score.dtype == np.float64
    assert concatenate([select(load_predictions(path), np.arange(3))] * 2).y_score.dtype == np.float64


@pytest.mark.parametrize("groups", [None, [0, 1, 1, 2]])
def test_units(groups, as_predictions):
    """What is independent are the patients, or the images where no patient is known."""
    table = as_predictions(np.zeros(4, int), np.ones((4, 1)), ("a",), groups)
    assert table.units.tolist() == (groups or [0, 1, 2, 3])


def test_disagreement_round_trip(path):
    """The disagreement of the members comes back, in a column of its own, and follows its images."""
    table = replace(load_predictions(path), disagreement=np.arange(20) / 32)
    save_predictions(path, table)
    loaded = load_predictions(path)
    np.testing.assert_array_equal(loaded.disagreement, table.disagreement)
    assert "disagreement" in pd.read_parquet(path).columns
    chosen = select(loaded, np.array([3, 1]))
    assert chosen.disagreement.tolist() == [3 / 32, 1 / 32]
    assert concatenate([chosen, chosen]).disagreement.tolist() == [3 / 32, 1 / 32] * 2


def test_one_member_has_no_disagreement(path):
    """A table without the column says None, alone and beside one that has it."""
    loaded = load_predictions(path)
    assert loaded.disagreement is None
    assert select(loaded, np.arange(2)).disagreement is None
    assert concatenate([loaded, replace(loaded, disagreement=np.zeros(20))]).disagreement is None
