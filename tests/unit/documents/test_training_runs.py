"""What an archive tells of a training, and what it keeps to itself."""

import pytest
from mlflow import MlflowClient

from medvision.documents.training_runs import find_training_runs
from medvision.errors import TrackingUnavailable
from medvision.records import Combination, Member, PackageInfo, Preprocessing

RUN_KEY = "1" * 32
MEMBER = Member("simple_cnn", {}, Preprocessing(16, 1, (0.4,), (0.2,)), 1.0, RUN_KEY, 1, 0.9)
INFO = PackageInfo("tiny", "tiny", ("no", "yes"), (MEMBER,), Combination(), (), None, "a" * 64, "b" * 64, RUN_KEY)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Return a client of a database with one experiment."""
    folder = tmp_path_factory.mktemp("runs")
    made = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    made.create_experiment("tiny", artifact_location=str(folder / "mlruns"))
    return made


def test_no_setting_tells_of_a_place(client):
    """Of a path, in whatever way it is written, the last part alone is told; other settings are told whole."""
    run = client.create_run("1", tags={"medvision.run_key": RUN_KEY})
    said = {
        "training.a": ("~/data/doe/weights.pth", "weights.pth"),
        "training.b": ("../patients/DOE_JOHN/", "DOE_JOHN"),
        "training.c": ("file:///home/jo/x.csv", "x.csv"),
        "training.d": ("local:/home/jo/w.pth", "w.pth"),
        "training.e": (r"C:\Users\jo\w.pth", "w.pth"),
        "training.model": ("timm/test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"),
        "training.lr": ("0.003", "0.003"),
    }
    for name, (value, _) in said.items():
        client.log_param(run.info.run_id, name, value)
    (found,) = find_training_runs(client, INFO)
    assert found.settings == {name: told for name, (_, told) in said.items()}


def test_a_server_that_is_away_is_named_as_such(monkeypatch):
    """Where MLflow does not answer, the error is ours: the command ends with one sentence."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = MlflowClient("http://127.0.0.1:9", "http://127.0.0.1:9")
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        find_training_runs(away, INFO)
