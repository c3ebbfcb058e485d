"""The registered model behind MLflow's own server, and the predictor in it: the scores of the evaluation."""

import base64
import io
import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from medvision_project import DATASET, MODEL
from PIL import Image

from medvision.evaluation.predictions import load_predictions
from medvision.serving.predictor import Predictor


@pytest.fixture(scope="module")
def predictions(project):
    return load_predictions(project.folder / "results/simple_cnn/predictions.parquet")


@pytest.fixture(scope="module")
def paths(project, predictions):
    """Return the test images, in the order of the predictions."""
    rows = pd.read_csv(project.folder / ".medvision/datasets" / DATASET / "files.csv")
    by_id = dict(zip(rows.image_id, rows.path, strict=True))
    return [project.folder / DATASET / by_id[image_id] for image_id in predictions.image_ids]


@pytest.fixture(scope="module")
def server(project):
    """Serve version 1 as the README says: in the project's folder, with no variable set."""
    command = ("mlflow", "models", "serve", "-m", f"models:/{MODEL}/1", "--env-manager", "local")
    with project.serving(*command, path="/ping") as url:
        yield f"{url}/invocations"


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


def post(url, body):
    """Return status and text of the answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_predictor_scores_as_the_evaluation_did(project, predictions, paths):
    """From image files the predictor gives the scores of the evaluation, for every test image."""
    answers = Predictor(project.folder / "checkpoints/simple_cnn_outputs/package").predict(paths)
    y_score = np.array([[answer.probabilities[name] for name in predictions.classes] for answer in answers])
    np.testing.assert_allclose(y_score, predictions.y_score, atol=1e-6)


def test_the_predictor_names_the_most_probable_class(project, predictions, paths):
    """Label and confidence are those of the highest probability."""
    answers = Predictor(project.folder / "checkpoints/simple_cnn_outputs/package").predict(paths)
    assert [answer.label for answer in answers] == [predictions.classes[label] for label in predictions.y_pred]
    assert [answer.confidence for answer in answers] == [max(answer.probabilities.values()) for answer in answers]


@pytest.mark.parametrize(
    "shape",
    [
        lambda images: {"dataframe_records": [{"image": image} for image in images]},
        lambda images: {"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}},
        lambda images: {"inputs": {"image": images}},
        lambda images: {"inputs": images},
    ],
    ids=["dataframe_records", "dataframe_split", "inputs by column", "inputs"],
)
def test_every_shape_of_body_is_answered(server, predictions, paths, shape):
    """Each of MLflow's bodies gets label, confidence and the probabilities that the evaluation found."""
    status, text = post(server, shape([encoded(path) for path in paths[:3]]))
    assert status == 200, text
    answers = json.loads(text)["predictions"]
    y_score = np.array([[answer["probabilities"][name] for name in predictions.classes] for answer in answers])
    np.testing.assert_allclose(y_score, predictions.y_score[:3], atol=1e-5)
    np.testing.assert_allclose(y_score.sum(axis=1), 1, atol=1e-6)
    assert [answer["label"] for answer in answers] == [predictions.classes[i] for i in predictions.y_pred[:3]]
    assert [answer["confidence"] for answer in answers] == [max(answer["probabilities"].values()) for answer in answers]


def truncated():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()[:1000]).decode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": {"image": ["abc!"]}}, "base64"),
        ({"inputs": {"image": [base64.b64encode(b"not an image").decode()]}}, "not a readable image"),
        ({"inputs": {"image": [truncated()]}}, "truncated"),
        ({"inputs": {"image": [""]}}, "not a readable image"),
        ({"dataframe_records": [{"image": None}]}, "found nothing"),
    ],
    ids=["broken base64", "text", "truncated", "empty", "null"],
)
def test_a_broken_image_is_told_in_a_sentence(server, body, said):
    """What holds no image gets 400 with one sentence: without the input, a stack trace or the path of a file."""
    status, text = post(server, body)
    message = json.loads(text)["message"]
    assert status == 400, text
    assert message.startswith("Image 0: ")
    assert said in message
    assert "\n" not in message
    assert not leaks(text)


@pytest.mark.parametrize(
    "body",
    [{"dataframe_records": [{"picture": truncated()}]}, {"dataframe_records": [{"image": 7}]}],
    ids=["wrong column", "number"],
)
def test_a_bad_request_is_refused(server, body):
    """What MLflow refuses by the signature gets 400 too, without a stack trace or the path of a file."""
    status, text = post(server, body)
    assert status == 400, text
    assert not leaks(text)


def leaks(text):
    told = ("Traceback", 'File "', "site-packages", ".py", "/tmp/", str(Path(__file__).parents[2]))
    return [leak for leak in told if leak in text]


def test_a_server_outlives_bad_requests(server, predictions, paths):
    """After requests that it refused, the server answers as before."""
    post(server, {"inputs": {"image": ["abc!"]}})
    status, _ = post(server, {"inputs": [encoded(paths[0])]})
    assert status == 200


@pytest.mark.slow
def test_a_server_that_does_not_trust_the_verdict(project, paths, tmp_path):
    """Where the verdict's key is not trusted each request gets 403 and one sentence, and so does the server's log."""
    tmp_path.chmod(0o700)
    command = ("env", f"MEDVISION_TRUSTED_KEYS={tmp_path}", "mlflow", "models", "serve", "-m", f"models:/{MODEL}/1")
    with project.serving(*command, "--env-manager", "local", path="/ping") as url:
        status, text = post(f"{url}/invocations", {"inputs": [encoded(paths[0])]})
    message = json.loads(text)["message"]
    assert status == 403, text
    assert f"{MODEL} refuses to answer" in message and "which is not trusted here" in message
    assert "\n" not in message and encoded(paths[0]) not in text
    assert not leaks(text)
    (log,) = project.folder.glob("env-*.log")
    assert f"!! {MODEL} refuses to answer" in log.read_text()
