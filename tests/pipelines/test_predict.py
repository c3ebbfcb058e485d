"""`medvision predict`: a registered model on files and folders, with the scores of the evaluation."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from medvision_project import DATASET, MODEL
from PIL import Image

from medvision.evaluation.predictions import load_predictions


@pytest.fixture(scope="module")
def predictions(project):
    return load_predictions(project.folder / "results/simple_cnn/predictions.parquet")


@pytest.fixture(scope="module")
def paths(project, predictions):
    """Return the test images as the project's folder has them, in the order of the predictions."""
    rows = pd.read_csv(project.folder / ".medvision/datasets" / DATASET / "files.csv")
    by_id = dict(zip(rows.image_id, rows.path, strict=True))
    return [f"{DATASET}/{by_id[image_id]}" for image_id in predictions.image_ids]


@pytest.fixture(scope="module")
def answered(project, paths):
    """Answer the test images once, into CSV on standard output."""
    return project.call("predict", f"{MODEL}/1", *paths)


@pytest.fixture
def mixed(tmp_path):
    """Return a folder of images in folders, beside notes, a hidden copy, and a file that is no image."""
    for name, shade in (("b/two.png", 60), ("a/one.jpeg", 120), ("three", 200)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (64, 64), shade).save(tmp_path / name, "PNG")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    return tmp_path


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_scores_are_those_of_the_evaluation(answered, predictions, paths):
    """Every test image has the scores, and the label, that `evaluate` gave it, to 1e-6, in the order of the paths."""
    assert answered.code == 0, answered.err
    rows = read_csv(answered.out)
    assert [row["path"] for row in rows] == paths
    y_score = np.array([[float(row[f"probability_{name}"]) for name in predictions.classes] for row in rows])
    np.testing.assert_allclose(y_score, predictions.y_score, atol=1e-6, rtol=0)
    assert [row["label"] for row in rows] == [predictions.classes[label] for label in predictions.y_pred]
    assert [float(row["confidence"]) for row in rows] == y_score.max(axis=1).tolist()


def test_a_row_names_its_model(project, answered):
    """Each row has name, semantic version and package digest of the model, and no error."""
    digest = project.client.get_model_version(MODEL, "1").tags["medvision.package_digest"]
    for row in read_csv(answered.out):
        assert (row["model"], row["version"], row["package_digest"], row["error"]) == (MODEL, "1.0.0", digest, "")


def test_prediction_sets_are_those_of_the_package(project, answered, predictions):
    """The set of each row holds the classes that reach the package's thresholds; a set that is not one is abstained."""
    package = project.json("checkpoints/simple_cnn_outputs/package/package.json")
    held = predictions.y_score.astype(np.float32) >= np.array(package["conformal"]["thresholds"], np.float32)
    for row, mask in zip(read_csv(answered.out), held, strict=True):
        names = [name for name, is_in in zip(predictions.classes, mask, strict=True) if is_in]
        assert row["prediction_set"] == "; ".join(names)
        assert row["abstained"] == str(len(names) != 1)


def test_images_of_another_kind_are_indeterminate(project, answered, tmp_path):
    """Nearly all test images are within the domain; noise and a plain field have a distance above 1, and are not."""
    inside = [row["indeterminate"] for row in read_csv(answered.out)]
    assert inside.count("True") <= 0.1 * len(inside)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.new("L", (64, 64), 90).save(tmp_path / "plain.png")
    rows = read_csv(project.call("predict", f"{MODEL}/1", str(tmp_path)).out)
    assert [row["indeterminate"] for row in rows] == ["True", "True"]
    assert all(float(row["domain_distance"]) > 1 for row in rows)


def test_nothing_is_recorded(project, answered, paths):
    """A prediction leaves no run: names of files may name patients."""
    assert not project.runs("predict")


def test_every_kind_of_file_says_the_same(project, paths, tmp_path):
    """CSV, JSON and Parquet hold the same rows, and nothing is printed beside them."""
    tables = {}
    for suffix in ("csv", "json", "parquet"):
        outcome = project.call("predict", f"{MODEL}/1", *paths[:3], "--out", str(tmp_path / f"answers.{suffix}"))
        assert (outcome.code, outcome.out) == (0, ""), outcome.err
    tables["csv"] = read_csv((tmp_path / "answers.csv").read_text())
    tables["json"] = json.loads((tmp_path / "answers.json").read_text())
    tables["parquet"] = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert tables["json"] == tables["parquet"]
    for row, printed in zip(tables["json"], tables["csv"], strict=True):
        assert isinstance(row["prediction_set"], list) and isinstance(row["abstained"], bool)
        assert list(row) == list(printed)
        assert row["confidence"] == float(printed["confidence"])


def test_a_file_that_is_no_image_is_a_row(project, mixed):
    """Folders are walked, sorted, by content and not by name; what is no image has its error, and the end is 5."""
    outcome = project.call("predict", f"{MODEL}/1", str(mixed))
    rows = read_csv(outcome.out)
    assert [row["path"].removeprefix(f"{mixed}/") for row in rows] == [
        "a/one.jpeg",
        "b/broken.png",
        "b/two.png",
        "three",
    ]
    assert [bool(row["label"]) for row in rows] == [True, False, True, True]
    assert "not a readable image" in rows[1]["error"]
    assert outcome.code == 5
    assert f"1 of 4 files are no readable images, the first is {mixed / 'b/broken.png'}" in outcome.err


def test_a_link_that_leads_nowhere_is_a_row(project, mixed):
    """A link in a folder to what is not there is no readable image, and said so."""
    (mixed / "b" / "broken.png").unlink()
    (mixed / "b" / "gone.png").symlink_to(mixed / "moved.png")
    outcome = project.call("predict", f"{MODEL}/1", str(mixed))
    row = next(row for row in read_csv(outcome.out) if row["path"].endswith("gone.png"))
    assert not row["label"] and "No such file" in row["error"]
    assert outcome.code == 5
    assert f"1 of 4 files are no readable images, the first is {mixed / 'b/gone.png'}" in outcome.err


def test_a_file_is_answered_once(project, mixed):
    """A file that is named twice, or lies in a folder that is named too, has one row."""
    one, two = str(mixed / "a/one.jpeg"), str(mixed / "b/two.png")
    outcome = project.call("predict", f"{MODEL}/1", two, str(mixed / "a"), one)
    assert outcome.code == 0, outcome.err
    assert [row["path"] for row in read_csv(outcome.out)] == [two, one]


@pytest.mark.parametrize("model", [f"{MODEL}@v1-0-0", f"{MODEL}/1.0.0", "models:/{source}"])
def test_a_model_is_named_as_in_mlflow(project, paths, model):
    """Alias, URI and logged model lead to the same answers."""
    source = project.client.get_model_version(MODEL, "1").source.removeprefix("models:/")
    outcome = project.call("predict", model.format(source=source), paths[0])
    assert outcome.code == 0, outcome.err
    assert read_csv(outcome.out)[0]["model"] == MODEL


def test_json_is_a_summary(project, paths):
    """With --json standard output holds one document, what was done, and the answers go to standard error."""
    outcome = project.call("predict", f"{MODEL}/1", paths[0], "--json")
    assert json.loads(outcome.out)["n"] == 1
    assert paths[0] in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((f"{MODEL}/77", DATASET), f"There is no model {MODEL}/77"),
        ((f"{MODEL}/9.9.9", DATASET), f"There is no model {MODEL}/9.9.9"),
        ((f"{MODEL}@nobody", DATASET), f"There is no model {MODEL}@nobody"),
        ((f"{MODEL}/1.0.x", DATASET), "Expected NAME/3, NAME/1.2.0 or NAME@champion; found"),
        (("nothing", DATASET), "Expected NAME/3, NAME/1.2.0 or NAME@champion; found 'nothing'"),
        ((f"{MODEL}/1", "missing.png"), "There is no file or folder missing.png"),
        ((f"{MODEL}/1", "config"), "There is no image in config"),
        ((f"{MODEL}/1", DATASET, "--out", "answers.xlsx"), "ends in .csv, .json, .parquet"),
    ],
    ids=["version", "semantic version", "alias", "no version", "name", "path", "no images", "suffix"],
)
def test_what_cannot_be_asked_is_named(project, arguments, said):
    """An unknown model, path or kind of file ends the command with 2 and a sentence."""
    outcome = project.call("predict", *arguments)
    assert outcome.code == 2, outcome
    assert said in outcome.err and "Traceback" not in outcome.err


def test_a_key_that_is_not_trusted(project, paths, tmp_path):
    """Where the key of the verdict is not trusted nothing is answered: 3."""
    outcome = project.call("predict", f"{MODEL}/1", paths[0], "--set", f"paths.state={tmp_path}")
    assert outcome.code == 3
    assert "which is not trusted here" in outcome.err and outcome.out == ""
