"""`medvision compare`: what is missing is trained, all are judged on the same cases, and it is said how surely."""

import csv
import shutil

import pytest
from medvision_project import DATASET, ON_DATASET, PAIR, PAIR_SETTINGS

from medvision.evaluation.predictions import load_predictions
from medvision.files import sha256_file

FILES = (
    "comparison_results.csv",
    "comparison_results.json",
    "comparison_report.txt",
    "accuracy_comparison.png",
    "multi_metric_comparison.png",
    "accuracy_vs_size.png",
    "inference_speed.png",
)
SLUGS = tuple(name.replace("/", "-") for name in PAIR)


@pytest.fixture(scope="module")
def comparison(pair):
    return pair.json("results/comparison/comparison_results.json")


@pytest.fixture(scope="module")
def run(pair):
    """Return the first comparison's run in MLflow."""
    return pair.runs("compare")[-1]


@pytest.fixture(scope="module")
def again(pair, tmp_path_factory):
    """Compare a second time, from `evaluate --detailed --compare`, into another folder of results."""
    results = tmp_path_factory.mktemp("again") / "results"
    weights = {slug: _weights(pair, slug) for slug in SLUGS}
    options = ("--model", PAIR[0], "--detailed", "--compare", PAIR[1], *ON_DATASET)
    outcome = pair.call("evaluate", *options, "--set", f"{PAIR_SETTINGS} paths.results={results}")
    assert outcome.code == 0, outcome.err
    run = next(run for run in pair.runs("evaluate") if "mlflow.parentRunId" not in run.data.tags)
    return results, run, weights


def _weights(project, slug):
    return sha256_file(project.folder / "checkpoints" / f"{slug}_outputs" / "package" / "weights.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_a_comparison_leaves_its_files(pair, run, name):
    """The results folder has report, tables and pictures, and the run has the same bytes as artifacts."""
    content = (pair.folder / "results" / "comparison" / name).read_bytes()
    assert len(content) > 100
    assert content.startswith(b"\x89PNG") == name.endswith(".png")
    assert pair.artifacts(run)[f"comparison/{name}"].read_bytes() == content


def test_a_comparison_is_one_run(pair, run):
    """What a comparison trains and evaluates is nested in its own run, and all of them are FINISHED."""
    steps = sorted(child.data.tags["medvision.step"] for child in pair.children(run))
    assert steps == ["evaluate", "evaluate", "train", "train"]
    assert {each.info.status for each in (run, *pair.children(run))} == {"FINISHED"}


def test_every_trained_model_is_a_logged_model(pair, run):
    """MLflow has taken the model of each training, whatever timm calls the network."""
    trained = [child for child in pair.children(run) if child.data.tags["medvision.step"] == "train"]
    outputs = [pair.client.get_run(each.info.run_id).outputs.model_outputs for each in trained]
    assert [len(each) for each in outputs] == [1, 1]
    assert {pair.client.get_logged_model(each.model_id).name for (each,) in outputs} == {
        f"{DATASET}-simple_cnn",
        f"{DATASET}-timm-test_resnet-r160_in1k",
    }


def test_all_models_have_the_same_cases(pair):
    """Each model's predictions are of the same images in the same order, and are no constant."""
    tables = [load_predictions(pair.folder / "results" / slug / "predictions.parquet") for slug in SLUGS]
    assert tables[0].image_ids == tables[1].image_ids
    assert tables[0].test_fingerprint == tables[1].test_fingerprint
    assert all(table.y_score.std(axis=0).min() > 1e-4 for table in tables)


def test_the_best_comes_first(comparison):
    """Models are ranked by balanced accuracy."""
    found = [model["evaluation"]["overall"]["balanced_accuracy"]["value"] for model in comparison["models"]]
    assert found == sorted(found, reverse=True)
    assert {model["name"] for model in comparison["models"]} == {*PAIR}


def test_the_pair_is_tested(comparison):
    """The difference of each figure has an interval, and each test a p value that is corrected for the pairs."""
    (pair,) = comparison["pairs"]
    assert {pair["a"], pair["b"]} == {*PAIR}
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in pair["differences"].values())
    assert pair["p_values"].keys() == pair["adjusted_p_values"].keys() >= {"mcnemar"}


def test_the_table_has_the_figures_of_the_record(pair, comparison):
    """The CSV has a row for each model, with the figures of the JSON."""
    with (pair.folder / "results" / "comparison" / "comparison_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [model["name"] for model in comparison["models"]]
    for row, model in zip(rows, comparison["models"], strict=True):
        assert float(row["accuracy"]) == model["evaluation"]["overall"]["accuracy"]["value"]
        assert int(row["n_parameters"]) == model["speed"]["n_parameters"]


def test_the_report_is_said(pair):
    """What stands in comparison_report.txt is what the command printed."""
    assert (pair.folder / "results" / "comparison" / "comparison_report.txt").read_text() in pair.outcome.out


def test_what_is_trained_is_not_trained_again(pair, again):
    """A second comparison trains nothing, and finds the packages as they were."""
    _, run, weights = again
    assert [child.data.tags["medvision.step"] for child in pair.children(run)] == ["evaluate"]
    assert weights == {slug: _weights(pair, slug) for slug in SLUGS}


def test_a_second_comparison_finds_the_same(pair, again, comparison):
    """The same packages on the same cases have the same figures and differences."""
    repeated = pair.json(again[0] / "comparison" / "comparison_results.json")
    assert repeated["pairs"] == comparison["pairs"]
    assert [model["evaluation"] for model in repeated["models"]] == [
        model["evaluation"] for model in comparison["models"]
    ]


def test_a_comparison_keeps_what_an_evaluation_found(pair, again):
    """`evaluate --detailed --compare` evaluates its own model once: the details are still there afterwards."""
    details = pair.json(again[0] / SLUGS[0] / "evaluation_details.json")
    assert details["speed"]["n_parameters"] > 0


@pytest.mark.parametrize("models", [PAIR[0], f"{PAIR[0]} {PAIR[0]}"])
def test_one_model_is_no_comparison(pair, tmp_path, models):
    """With one model, or the same one twice, the command ends with 2 and says how two are given."""
    options = ("--models", models, *ON_DATASET, "--set", f"{PAIR_SETTINGS} paths.results={tmp_path}")
    outcome = pair.call("compare", *options)
    assert outcome.code == 2
    assert "at least two models" in outcome.err and "--models" in outcome.err


def test_an_unknown_model_stops_a_comparison_first(pair, tmp_path):
    """A model that nobody knows ends the command with 2 and the nearest name before any other is trained."""
    shutil.copytree(pair.folder / ".medvision", tmp_path / "state")
    paths = f"paths.checkpoints={tmp_path / 'checkpoints'} paths.results={tmp_path} paths.state={tmp_path / 'state'}"
    outcome = pair.call("compare", "--models", "simple_cnn resnet81", *ON_DATASET, "--set", f"{PAIR_SETTINGS} {paths}")
    assert outcome.code == 2
    assert "'resnet18'" in outcome.err
    assert not (tmp_path / "checkpoints").exists()
