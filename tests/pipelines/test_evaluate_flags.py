"""What `medvision evaluate` leaves, and what its flags add to it."""

import html.parser
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from medvision_project import CRITICAL, DATASET, ON_DATASET, PAIR_SETTINGS, ROOT
from sklearn import metrics

from medvision.models.package import load_info

MODEL = ("--model", "simple_cnn")
PICTURES = (
    "confusion_matrix.png",
    "per_class_metrics.png",
    "roc_curve.png",
    "precision_recall_curve.png",
    "reliability_diagram.png",
    "confidence_distribution.png",
    "risk_coverage.png",
    "decision_curve.png",
    "worst_mistakes.png",
)
FILES = (
    "evaluation_report.txt",
    "evaluation_metrics.json",
    "evaluation_details.json",
    "evaluation_report.html",
    "predictions.parquet",
    *PICTURES,
)
# Recipe of the folds, and as little of everything as shows that it is there.
BRIEF = "training.epochs=1 transform.image_size=32 evaluation.folds=3 evaluation.robustness_images=6"
SUBGROUPS = "evaluation.subgroups=[width]"
SECTIONS = ("Subgroups", "Robustness", "Cross-validation", "Speed")


@dataclass
class Evaluated:
    """How an evaluation ended, its run in MLflow, and what it left."""

    project: object
    results: Path
    outcome: object

    def __post_init__(self):
        assert self.outcome.code == 0, self.outcome.err
        self.folder = self.results / "simple_cnn"
        self.run = next(run for run in self.project.runs("evaluate") if "mlflow.parentRunId" not in run.data.tags)
        self.record = self.project.json(self.folder / "evaluation_metrics.json")
        self.details = self.project.json(self.folder / "evaluation_details.json")
        self.text = (self.folder / "evaluation_report.txt").read_text()
        self.html = (self.folder / "evaluation_report.html").read_text()


@pytest.fixture(scope="module")
def plain(pair, tmp_path_factory):
    """Evaluate without a flag."""
    results = tmp_path_factory.mktemp("plain")
    settings = f"{PAIR_SETTINGS} paths.results={results}"
    return Evaluated(pair, results, pair.call("evaluate", *MODEL, *ON_DATASET, "--set", settings))


@pytest.fixture(scope="module")
def full(pair, tmp_path_factory):
    """Evaluate with every flag."""
    results = tmp_path_factory.mktemp("full")
    flags = ("--detailed", "--robustness-test", "--cross-validation", "--medical-validation", "--policy", "easy")
    settings = f"{PAIR_SETTINGS} {BRIEF} {SUBGROUPS} paths.results={results}"
    return Evaluated(pair, results, pair.call("evaluate", *MODEL, *flags, *ON_DATASET, "--set", settings))


@pytest.fixture(scope="module")
def spelled(pair, tmp_path_factory):
    """Evaluate with the arguments of `mlflow run . -e evaluate -P detailed=true -P ...`, without sharing images."""
    results = tmp_path_factory.mktemp("spelled")
    command = _entry_point(detailed="true", set=f"{SUBGROUPS} paths.results={results} tracking.share_images=false")
    return Evaluated(pair, results, pair.call("evaluate", *command[3:]))


@pytest.fixture(scope="module")
def tracked(pair, tmp_path_factory):
    """Evaluate as `mlflow run . -e evaluate -P ...` does, in a process of its own, with W&B and TensorBoard."""
    results = tmp_path_factory.mktemp("tracked")
    command = _entry_point(detailed="true", robustness_test="true", set=f"{BRIEF} paths.results={results}")
    return Evaluated(pair, results, pair.run(*command))


def _entry_point(**given):
    """Return the command of MLproject with its parameters filled in: those that are not given by their defaults."""
    entry = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]["evaluate"]
    values = {name: parameter["default"] for name, parameter in entry["parameters"].items()} | given
    values |= {"model": "simple_cnn", "dataset_path": DATASET, "patient_pattern": ON_DATASET[3]}
    values["set"] = f"{PAIR_SETTINGS} {given['set']}"
    return [part.format_map(values) for part in shlex.split(entry["command"])]


@pytest.mark.parametrize("name", FILES)
def test_an_evaluation_leaves_its_files(plain, name):
    """The results folder has the file, and the run has the same bytes as an artifact."""
    content = (plain.folder / name).read_bytes()
    assert len(content) > 100
    assert content.startswith(b"\x89PNG") == name.endswith(".png")
    assert plain.project.artifacts(plain.run)[f"evaluation/{name}"].read_bytes() == content


def test_the_figures_of_all_classes_are_those_of_scikit_learn(plain):
    """Overall figures of the JSON are scikit-learn's on predictions.parquet."""
    y_true, y_score = _read_predictions(plain)
    y_pred, k = y_score.argmax(axis=1), y_score.shape[1]
    one_hot = np.eye(k)[y_true]
    expected = {
        "accuracy": metrics.accuracy_score(y_true, y_pred),
        "balanced_accuracy": metrics.balanced_accuracy_score(y_true, y_pred),
        "macro_f1": metrics.f1_score(y_true, y_pred, average="macro"),
        "weighted_f1": metrics.f1_score(y_true, y_pred, average="weighted"),
        "auroc": metrics.roc_auc_score(one_hot, y_score, average="macro"),
        "auprc": metrics.average_precision_score(one_hot, y_score, average="macro"),
        "brier": sum(metrics.brier_score_loss(one_hot[:, c], y_score[:, c]) for c in range(k)),
        "nll": metrics.log_loss(y_true, y_score / y_score.sum(axis=1, keepdims=True)),
    }
    found = {name: plain.record["overall"][name]["value"] for name in expected}
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("c", range(3))
def test_the_figures_of_a_class_are_those_of_scikit_learn(plain, c):
    """Figures of each class in the JSON are scikit-learn's on predictions.parquet."""
    y_true, y_score = _read_predictions(plain)
    is_case, called = y_true == c, y_score.argmax(axis=1) == c
    (tn, fp), (fn, tp) = metrics.confusion_matrix(is_case, called)
    expected = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp) if tp + fp else None,
        "npv": tn / (tn + fn),
        "f1": metrics.f1_score(is_case, called),
        "auroc": metrics.roc_auc_score(is_case, y_score[:, c]),
        "auprc": metrics.average_precision_score(is_case, y_score[:, c]),
    }
    found = plain.record["per_class"][c]
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
    assert found["n"] == is_case.sum()


def _read_predictions(evaluated):
    table = pd.read_parquet(evaluated.folder / "predictions.parquet")
    names = [f"score_{name}" for name in evaluated.record["classes"]]
    return table.y_true.to_numpy(), table[names].to_numpy().astype(np.float64)


def test_every_figure_has_an_interval(plain):
    """Each overall figure of the JSON lies in its 95 % interval, and names its method."""
    for figure in plain.record["overall"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["method"]


def test_the_run_has_the_figures(plain):
    """The metrics of the MLflow run are the figures of the JSON."""
    figures = plain.run.data.metrics
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "auprc", "ece", "brier"):
        assert figures[f"test/{name}"] == pytest.approx(plain.record["overall"][name]["value"])


class _References(html.parser.HTMLParser):
    """Collects what a browser would fetch for a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        self.found += ["<script>"] if tag == "script" else []


@pytest.mark.parametrize("name", ["plain", "full"])
def test_the_page_is_self_contained(request, name):
    """The page refers to nothing but itself: pictures are within, and there is no script."""
    page = request.getfixturevalue(name).html
    references = _References(page).found
    assert len(references) > len(PICTURES)
    assert [each[:60] for each in references if not each.startswith(("#", "data:image/png;base64,"))] == []
    assert not re.search(r"@import|url\(", page)


def test_the_page_shows_every_picture(plain):
    """All pictures of the evaluation stand in the page."""
    pictures = [each for each in _References(plain.html).found if each.startswith("data:image/png;base64,")]
    assert len(pictures) == len(PICTURES)
    assert all(f'id="{name.removesuffix(".png")}"' in plain.html for name in PICTURES)


def test_the_page_names_model_and_intervals(plain):
    """The page has the name of the model, and every overall figure with its interval."""
    words = " ".join(re.sub(r"<[^>]+>", " ", plain.html).split())
    assert f"Evaluation of {DATASET}-simple_cnn" in words
    for figure in plain.record["overall"].values():
        shown = (f"{each:.3f}" if abs(each) < 100 else f"{each:.2g}" for each in _ends(figure))
        assert "{} {} to {}".format(*shown) in words


def _ends(figure):
    return figure["value"], figure["low"], figure["high"]


def test_the_page_has_the_verdict_once_there_is_one(plain, full):
    """Before `validate` the page says that nothing is judged; after it, the verdict and the policy, with every rule."""
    verdict = full.project.json(full.folder / "medical_validation.json")
    assert "Not judged yet" in plain.html and "Medical validation" not in plain.html
    assert "Medical validation: passed" in full.html and "Not judged yet" not in full.html
    assert [rule["rule"] for rule in verdict["outcomes"] if html.escape(rule["message"]) not in full.html] == []


def test_a_validation_is_nested_in_its_evaluation(full):
    """`evaluate --medical-validation` validates in a nested run, whose page is the one with the verdict."""
    (validation,) = full.project.children(full.run)
    assert (validation.data.tags["medvision.step"], validation.info.status) == ("validate", "FINISHED")
    page = full.project.artifacts(validation)["evaluation/evaluation_report.html"]
    assert page.read_text() == full.html


@pytest.mark.parametrize("section", SECTIONS)
def test_flags_add_sections(plain, full, section):
    """What a flag asks for stands in text and page, and without the flag it does not."""
    assert section in full.text and f"<h2>{section}" in full.html
    assert section not in plain.text and f"<h2>{section}" not in plain.html


def test_flags_add_records(plain, full):
    """What the flags ask for stands in evaluation_details.json, and without them it does not."""
    names = ("subgroups", "speed", "robustness", "cross_validation")
    assert all(full.details[name] for name in names)
    assert not any(plain.details[name] for name in names)


def test_flags_change_no_figure(plain, full):
    """The figures on the test split are the same with and without flags."""
    assert full.record == plain.record


def test_a_subgroup_that_is_too_small_has_no_figures(full):
    """Six patients of one width are insufficient evidence, in the record and in the report."""
    (group,) = full.details["subgroups"]
    assert (group["column"], group["value"], group["n_patients"]) == ("width", "64", 6)
    assert group["state"] == "insufficient evidence" and group["overall"] is None
    assert "insufficient evidence" in full.text and "insufficient evidence" in full.html


def test_robustness_is_every_corruption_at_five_severities(full):
    """Noise, blur, brightness, contrast, gamma, rotation, JPEG and resolution are tried at severities 1 to 5."""
    tried = {}
    for each in full.details["robustness"]["corrupted"]:
        tried.setdefault(each["kind"], []).append(each["severity"])
    assert len(tried) == 8
    assert set(map(tuple, tried.values())) == {(1, 2, 3, 4, 5)}
    assert full.details["robustness"]["n"] == 6


def test_cross_validation_never_sees_the_test_split(full):
    """Each image of train and val is tested once, and none of test."""
    folds = full.details["cross_validation"]["folds"]
    assert len(folds) == 3
    assert sum(fold["n_test"] for fold in folds) == 144 - full.record["n"]


def test_a_parameter_is_its_flag(full, spelled):
    """`-P detailed=true` gives the sections of `--detailed`."""
    assert spelled.details["subgroups"] == full.details["subgroups"]
    assert spelled.details["speed"]["n_parameters"] == full.details["speed"]["n_parameters"]
    assert spelled.record == full.record


def test_a_parameter_that_is_false_is_no_flag(spelled):
    """`-P robustness_test=false`, and so on, ask for nothing; neither does an empty `compare`."""
    assert spelled.details["robustness"] is None and spelled.details["cross_validation"] is None
    assert spelled.project.children(spelled.run) == []
    assert not (spelled.folder / "medical_validation.json").exists()


def test_images_stay_here_if_they_shall(plain, spelled):
    """With tracking.share_images=false no picture of a patient's image is in MLflow; the results folder has it."""
    shared = spelled.project.artifacts(spelled.run)
    assert (spelled.folder / "worst_mistakes.png").is_file() and 'id="worst_mistakes"' in spelled.html
    assert "evaluation/worst_mistakes.png" not in shared
    assert 'id="worst_mistakes"' not in shared["evaluation/evaluation_report.html"].read_text()
    assert {f"evaluation/{name}" for name in FILES if name != "worst_mistakes.png"} <= shared.keys()


@pytest.mark.slow
def test_a_command_of_mlproject_does_what_the_step_does(tracked, plain):
    """`python -m pipelines.evaluate --detailed true ... --compare ""` finds the figures of `medvision evaluate`."""
    assert tracked.record == plain.record
    assert tracked.details["speed"] and tracked.details["robustness"] and not tracked.details["cross_validation"]


@pytest.mark.slow
def test_wandb_has_what_shows_no_patient(tracked):
    """W&B's offline run of the evaluation holds report, figures and pictures, without images and rows of patients."""
    (folder,) = (tracked.project.folder / "wandb").glob(f"offline-run-*-{tracked.run.data.tags['wandb.run_id']}")
    names = {path.name for path in (folder / "files" / "evaluation").iterdir()}
    assert names == {*FILES} - {"worst_mistakes.png", "evaluation_report.html", "predictions.parquet"}


@pytest.mark.slow
def test_no_image_is_named_in_wandb_and_tensorboard(tracked):
    """No name of an image file or a patient stands in W&B's and TensorBoard's files."""
    assert _named(tracked.project.folder, "wandb", "runs") == []


def test_no_image_is_named_in_mlflow(plain, full):
    """Nothing that goes to MLflow, from training to verdict, holds the name of an image file or a patient."""
    assert _named(full.project.folder, "mlruns") == []
    assert not [path for path in full.project.folder.glob("mlflow.db*") if _PATIENT.search(path.read_bytes())]


def test_no_image_is_named_in_the_predictions(full):
    """The table of predictions, which is compressed, holds keys and no names either."""
    table = pd.read_parquet(full.folder / "predictions.parquet")
    assert not (table.image_id.str.contains("phantom") | table.patient_key.str.contains("phantom")).any()


# A database has no blank between the dataset's name and a fingerprint.
_PATIENT = re.compile(rb"(?<!brain-)phantom\d")


def _named(folder, *kept):
    """Return the files in folders of a project in which an image or a patient is named."""
    stems = [path.stem.encode() for path in (folder / DATASET).rglob("*.png")]
    assert len(stems) == 144 and all(map(_PATIENT.match, stems))
    paths = [path for name in kept for path in (folder / name).rglob("*") if path.is_file()]
    assert paths
    return [path for path in paths if _PATIENT.search(path.read_bytes())]


def test_a_critical_class_has_an_operating_point(pair, plain):
    """The package holds the threshold of a critical class; report, record and page say what it does on test."""
    (point,) = load_info(pair.folder / "checkpoints" / "simple_cnn_outputs" / "package").operating_points
    (tested,) = plain.details["operating_points"]
    assert point.class_name == tested["class_name"] == CRITICAL
    assert point.threshold == tested["threshold"]
    assert point.sensitivity.bound >= point.target_sensitivity
    assert f"Operating point: {CRITICAL} is called from a score of {point.threshold:.4f} on" in plain.text
    assert f"Sensitivity for {CRITICAL}" in plain.html


def test_an_operating_point_is_a_threshold_on_the_predictions(plain):
    """Its sensitivity and specificity on test are those of calling all scores from the threshold on."""
    (point,) = plain.details["operating_points"]
    y_true, y_score = _read_predictions(plain)
    c = plain.record["classes"].index(CRITICAL)
    called = y_score[:, c] >= point["threshold"]
    assert point["sensitivity"]["value"] == pytest.approx(called[y_true == c].mean())
    assert point["specificity"]["value"] == pytest.approx((~called[y_true != c]).mean())


@pytest.mark.parametrize("step", ["train", "evaluate"])
def test_an_unknown_critical_class_is_refused(pair, tmp_path, step):
    """A critical class that nobody knows ends the command with 2 and the nearest name; nothing is trained or tested."""
    outcome = _with_critical(pair, tmp_path, step, "evaluation.critical_classes=[phantom_gliom]")
    assert outcome.code == 2, outcome
    assert f"'{CRITICAL}'" in outcome.err


def test_an_unattainable_operating_point_is_refused(pair, tmp_path):
    """A sensitivity that so few val cases can't show ends `train` with 5 and what would do, before any epoch."""
    target = f"evaluation.critical_classes=[{CRITICAL}] evaluation.target_sensitivity=0.9"
    outcome = _with_critical(pair, tmp_path, "train", target)
    assert outcome.code == 5, outcome
    assert "2 val patients" in outcome.err and "29 are needed" in outcome.err


def _with_critical(project, folder, step, settings):
    """Run a step, which is to be refused, on a copy of what it needs; check that it left all as it was."""
    shutil.copytree(project.folder / ".medvision", folder / "state")
    shutil.copytree(project.folder / "checkpoints", folder / "checkpoints")
    before = _written(folder)
    places = f"paths.state={folder / 'state'} paths.checkpoints={folder / 'checkpoints'} paths.results={folder / 'r'}"
    outcome = project.call(step, *MODEL, *ON_DATASET, "--set", f"{places} {settings}")
    assert _written(folder) == before
    return outcome


def _written(folder):
    """Return checkpoints, ledger and results."""
    paths = [path for pattern in ("checkpoints", "state/datasets", "r") for path in (folder / pattern).rglob("*")]
    kept = [path for path in paths if path.is_file() and path.suffix not in (".lock",) and "audit" not in path.name]
    return {path.relative_to(folder): path.read_bytes() for path in kept}
