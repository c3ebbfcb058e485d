"""A candidate is held against the champion of the registry, on the same images."""

import dataclasses
import json
import shutil

import pytest
from medvision_project import DATASET, MODEL, ON_DATASET

from medvision.models.package import load_package, save_package
from medvision.registry import packages


@pytest.fixture
def champion(project):
    """Make the pipeline's model the champion for the length of a test; return its digest."""
    project.client.set_registered_model_alias(MODEL, "champion", "1")
    yield project.client.get_model_version(MODEL, "1").tags["medvision.package_digest"]
    project.client.delete_registered_model_alias(MODEL, "champion")


@pytest.fixture
def elsewhere(project, tmp_path):
    """Return the options under which commands work on a copy of what the pipeline left."""
    for name in ("results", "checkpoints", ".medvision"):
        shutil.copytree(project.folder / name, tmp_path / name)
    names = {"results": "results", "checkpoints": "checkpoints", "state": ".medvision"}
    return " ".join(f"paths.{name}={tmp_path / folder}" for name, folder in names.items())


def validate(project, elsewhere):
    """Validate under the policy that asks for non-inferiority; return how it ended, and the rule's outcome."""
    options = ("--model", "simple_cnn", *ON_DATASET, "--policy", "rival", "--set", elsewhere)
    ended = project.call("validate", *options)
    path = project.folder / elsewhere.split()[0].partition("=")[2] / "simple_cnn" / "medical_validation.json"
    verdict = json.loads(path.read_text())
    (rule,) = (rule for rule in verdict["outcomes"] if rule["rule"] == "non_inferiority.balanced_accuracy")
    return ended, verdict, rule


def test_no_champion(project, elsewhere):
    """Where the registry has no champion the rule passes, says so, and the verdict names none."""
    ended, verdict, rule = validate(project, elsewhere)
    assert ended.code == 0, ended.err
    assert "no champion" in rule["message"]
    assert verdict["champion_digest"] is None


def test_the_champion_itself(project, elsewhere, champion):
    """The champion is as good as itself, which needs no evidence, and the verdict names its digest."""
    ended, verdict, rule = validate(project, elsewhere)
    assert ended.code == 0, ended.err
    assert "the champion itself" in rule["message"]
    assert verdict["champion_digest"] == champion


def test_a_worse_candidate(project, elsewhere, champion, tmp_path):
    """A candidate that was honestly evaluated, and is worse than the champion, fails with 3 and the difference."""
    package = tmp_path / "checkpoints" / "simple_cnn_outputs" / "package"
    info, networks = load_package(package)
    for parameter in networks[0].parameters():
        parameter.data *= -1
    save_package(package, info, networks)
    evaluated = project.call("evaluate", "--model", "simple_cnn", *ON_DATASET, "--set", elsewhere)
    assert evaluated.code == 0, evaluated.err
    ended, verdict, rule = validate(project, elsewhere)
    assert ended.code == 3
    assert rule["state"] == "failed" and rule["found"] < -0.03
    # So few patients can show that it is not as good, but hardly that it is worse.
    assert "worse than the champion" in rule["remedy"] or "is not shown" in rule["remedy"]
    assert verdict["champion_digest"] == champion != verdict["package_digest"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"split_fingerprint": "9" * 64}, "the champion was trained on split 999999999999"),
        ({"classes": ("no", "maybe", "yes")}, "the champion tells no, maybe, yes apart"),
    ],
    ids=["another split", "other classes"],
)
def test_a_champion_that_cannot_be_compared(project, elsewhere, tmp_path, monkeypatch, change, named):
    """A champion of other classes, or of another split, fails the rule, which says what differs and what to do."""
    info, networks = load_package(tmp_path / "checkpoints" / "simple_cnn_outputs" / "package")
    save_package(tmp_path / "champion", dataclasses.replace(info, **change), networks)
    monkeypatch.setattr(packages, "download_champion", lambda *_: tmp_path / "champion")
    ended, _, rule = validate(project, elsewhere)
    assert ended.code == 3, ended.err
    assert rule["state"] == "failed" and named in rule["message"]
    assert rule["remedy"]


@pytest.mark.slow
def test_a_registry_that_is_away(project, elsewhere):
    """Where the registry can't be asked for its champion the command ends with 75, and signs nothing."""
    away = "tracking.uri=http://127.0.0.1:9 tracking.drain_s=0 tracking.wandb=false tracking.tensorboard=false"
    options = ("--model", "simple_cnn", *ON_DATASET, "--policy", "rival", "--set", f"{elsewhere} {away}")
    ended = project.run(
        "env", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0", "MLFLOW_HTTP_REQUEST_TIMEOUT=2", "medvision", "validate", *options
    )
    assert ended.code == 75, ended.err
    assert DATASET in ended.err or "does not answer" in ended.err
