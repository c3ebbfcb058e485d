"""What the prediction service answers is what the evaluation has found, image by image, whatever engine computes it."""

import io

import httpx
import numpy as np
import pandas as pd
import pytest
from medvision_project import DATASET, MODEL
from PIL import Image

pytestmark = pytest.mark.slow

# The same function computes both with PyTorch; another engine rounds in another order.
TOLERANCES = {"torch": 1e-6, "onnx": 1e-3}


@pytest.fixture(scope="module", params=TOLERANCES)
def client(project, request):
    """Return a client of a service of the registered version, with one engine after the other."""
    command = ("medvision", "serve", f"{MODEL}/1", "--no-auth", "--engine", request.param)
    with project.serving(*command, path="/readyz") as url, httpx.Client(base_url=url, timeout=60) as found:
        yield found


def ask(client, content, path="/api/v1/predict"):
    """Return the answer for an image."""
    answer = client.post(path, files={"image": ("a.png", content)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_scores_over_http_are_those_of_the_evaluation(project, client):
    """Each test image gets over HTTP the probabilities that `evaluate` has written."""
    engine = client.get("/api/v1/model_info").json()["engine"]
    expected = pd.read_parquet(project.folder / "results" / "simple_cnn" / "predictions.parquet")
    files = pd.read_csv(project.folder / ".medvision" / "datasets" / DATASET / "files.csv").set_index("image_id").path
    differences = []
    for row in expected.to_dict("records"):
        answer = ask(client, (project.folder / DATASET / files[row["image_id"]]).read_bytes())
        # One that is unlike the images of training has no figures to be compared.
        found = (answer["probabilities"] or {}).items()
        differences += [abs(value - row[f"score_{name}"]) for name, value in found]
    largest = max(differences)
    print(f"{engine}: {len(differences)} scores, largest difference {largest:.1e}, {TOLERANCES[engine]:.0e} is allowed")
    assert len(differences) >= 36 and largest <= TOLERANCES[engine]


def test_what_the_model_does_not_know_has_no_answer(client):
    """An image of noise is indeterminate: without class, probabilities and heat map, and with advice to read it."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(file, "PNG")
    answer = ask(client, file.getvalue(), "/api/v1/predict/advanced?heat_map=true")
    assert answer["status"] == answer["uncertainty"]["level"] == "indeterminate"
    assert answer["uncertainty"]["domain_distance"] > 1 and "person" in answer["uncertainty"]["recommendation"]
    hidden = ("prediction", "confidence", "probabilities", "heat_map_png")
    assert [answer[name] for name in hidden] == [None] * 4
    assert not answer["called"] and not answer["members"]
