"""Models named by where they lie: a checkpoint, a run, a registered version. Each is the same model everywhere."""

import shutil

import numpy as np
import pytest
import torch
from medvision_project import MODEL, ON_DATASET, PAIR, PAIR_SETTINGS

from medvision.evaluation.predictions import load_predictions
from medvision.models.package import package_digest
from medvision.registry.packages import download_package

BEST = "checkpoints/simple_cnn_outputs/best_model.pth"


@pytest.fixture
def results(tmp_path):
    """Return a folder for results, so that those of the pipeline stay."""
    return tmp_path / "results"


def evaluate(project, source, results):
    """Evaluate a source, with a ledger of the test set of its own; return the outcome."""
    state = results.with_name(".medvision")
    shutil.copytree(project.folder / ".medvision", state)
    return project.call(
        "evaluate", "--source", source, *ON_DATASET, "--set", f"paths.results={results} paths.state={state}"
    )


def scores(folder):
    """Return the probabilities of an evaluation."""
    return load_predictions(folder / "predictions.parquet").y_score


@pytest.mark.parametrize("kind", ["checkpoint", "version", "run"])
def test_a_source_is_evaluated_as_its_package(project, results, kind):
    """Best_model.pth, the registered version and the run that trained it all give the scores of the package."""
    (run_id,) = (
        run.info.run_id
        for run in project.children(project.runs("pipeline")[-1])
        if run.data.tags["medvision.step"] == "train"
    )
    source, name = {
        "checkpoint": (BEST, "simple_cnn_outputs-best_model"),
        "version": (f"models:/{MODEL}/1", f"{MODEL}-1"),
        "run": (run_id, run_id),
    }[kind]
    outcome = evaluate(project, source, results)
    assert outcome.code == 0, outcome.err
    np.testing.assert_allclose(scores(results / name), scores(project.folder / "results" / "simple_cnn"), atol=1e-6)


def test_a_version_is_looked_for_where_the_settings_say(project, tmp_path, monkeypatch):
    """It is fetched from the store that was named, from whatever folder, and no other store is asked or made."""
    monkeypatch.chdir(tmp_path)
    found = download_package(f"sqlite:///{project.folder / 'mlflow.db'}", f"models:/{MODEL}/1", tmp_path / "fetched")
    trained = project.folder / "checkpoints" / "simple_cnn_outputs" / "package"
    assert package_digest(found) == package_digest(trained)
    assert [path.name for path in tmp_path.iterdir()] == ["fetched"]


def test_a_checkpoint_of_another_split_is_refused(project, results):
    """Test images that it may have been trained on say nothing of it: refused, both splits named."""
    folder = project.folder / "elsewhere"
    folder.mkdir(exist_ok=True)
    state = torch.load(project.folder / BEST, weights_only=True)
    state["config"]["split_fingerprint"] = "f" * 64
    torch.save(state, folder / "best_model.pth")
    outcome = evaluate(project, "elsewhere/best_model.pth", results)
    assert outcome.code == 5
    assert "was trained on split ffffffffffff, but the split at hand is" in outcome.err


def test_a_file_that_is_no_checkpoint_is_refused(project, results):
    """Weights of another project have neither recipe nor split: refused with what is expected."""
    folder = project.folder / "foreign"
    folder.mkdir(exist_ok=True)
    torch.save({"conv.weight": torch.zeros(1)}, folder / "weights.pth")
    outcome = evaluate(project, "foreign/weights.pth", results)
    assert outcome.code != 0
    assert "is no checkpoint of this medvision's training. Expected best_model.pth" in outcome.err
    assert "Traceback" not in outcome.err


def test_runs_are_compared_by_id(pair, results):
    """Two runs are compared as the packages that they trained."""
    stated = {model["name"]: model["evaluation"]["overall"]["accuracy"]["value"] for model in pair.json(
        "results/comparison/comparison_results.json")["models"]}  # fmt: skip
    runs = {run.data.params.get("training.model"): run.info.run_id for run in pair.runs("train")}
    ids = {name: runs[name] for name in PAIR}
    outcome = pair.call(
        "compare", "--models", f"{ids[PAIR[0]]} {ids[PAIR[1]]}", *ON_DATASET,
        "--set", f"{PAIR_SETTINGS} paths.results={results}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    compared = pair.json(results / "comparison" / "comparison_results.json")["models"]
    assert {model["name"]: model["evaluation"]["overall"]["accuracy"]["value"] for model in compared} == {
        ids[name]: accuracy for name, accuracy in stated.items()
    }
    for run_id in ids.values():
        shutil.rmtree(pair.folder / "checkpoints" / f"{run_id}_outputs")
