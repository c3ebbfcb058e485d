"""What commands refuse, with which exit code and words; none of it changes what the pipeline left."""

import shutil
from pathlib import Path

import pytest
from medvision_project import DATASET, MODEL, ON_DATASET, ON_MODEL, RECIPE

RESULTS = "results/simple_cnn"


@pytest.fixture
def elsewhere(project, tmp_path):
    """Return the option that keeps results in a folder of the test's own, which starts as a copy of the pipeline's."""
    shutil.copytree(project.folder / RESULTS, tmp_path / "simple_cnn")
    return f"paths.results={tmp_path}"


def test_a_version_is_registered_once(project):
    """Registering a semantic version a second time ends with 4 and changes nothing in the registry."""
    before = project.versions()
    outcome = project.call("register", *ON_MODEL, "--version", "1.0.0")
    assert outcome.code == 4
    assert f"{MODEL} 1.0.0 is registered already" in outcome.err
    assert project.versions() == before


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "01.0.0", "1.0.0-rc1"])
def test_a_version_is_semantic(project, version):
    """A version that is not MAJOR.MINOR.PATCH ends with 2, and the message shows one that is."""
    before = project.versions()
    outcome = project.call("register", *ON_MODEL, "--version", version)
    assert outcome.code == 2
    assert "for example 1.0.0" in outcome.err
    assert project.versions() == before


def test_a_failed_gate_names_every_rule(project, elsewhere):
    """`validate` under a policy that is not met ends with 3; every rule that failed is named with both figures."""
    outcome = project.call("validate", "--model", "simple_cnn", *ON_DATASET, "--policy", "strict", "--set", elsewhere)
    results = Path(elsewhere.partition("=")[2])
    verdict = project.json(results / "simple_cnn" / "medical_validation.json")
    failed = [rule["message"] for rule in verdict["outcomes"] if rule["state"] == "failed"]
    assert outcome.code == 3
    assert verdict["state"] == "failed" and failed
    assert all(message in outcome.out for message in failed)
    assert "0.001 ms are allowed" in failed[-1]
    assert f"{len(failed)} of {len(verdict['outcomes'])} rules are not met" in outcome.err


def test_too_few_cases_are_not_called_failure(project, elsewhere):
    """`validate` under a policy that so few patients can't meet ends with 3, and says how many more it takes."""
    outcome = project.call("validate", "--model", "simple_cnn", *ON_DATASET, "--policy", "certain", "--set", elsewhere)
    assert outcome.code == 3
    assert "INSUFFICIENT EVIDENCE" in outcome.out
    assert "23 more patients in the test split would let a perfect model pass" in outcome.out


def test_a_failed_verdict_stands_in_mlflow(project, elsewhere):
    """The run of a failed validation is FAILED, says so in a tag, and holds the verdict and its signature."""
    project.call("validate", "--model", "simple_cnn", *ON_DATASET, "--policy", "strict", "--set", elsewhere)
    run = project.runs("validate", verdict="failed")[0]
    assert run.info.status == "FAILED"
    names = {entry.path for entry in project.client.list_artifacts(run.info.run_id, "validation")}
    assert {"validation/medical_validation.json", "validation/medical_validation.dsse.json"} <= names


def test_what_failed_is_not_registered(project, elsewhere):
    """After a failed verdict `register` ends with 3, names the rules, and registers nothing."""
    project.call("validate", "--model", "simple_cnn", *ON_DATASET, "--policy", "strict", "--set", elsewhere)
    before = project.versions()
    outcome = project.call("register", *ON_MODEL, "--set", elsewhere)
    assert outcome.code == 3
    assert "0.001 ms are allowed" in outcome.err
    assert project.versions() == before


def test_a_model_is_evaluated_on_its_own_split(project):
    """Another split ends `evaluate` with 5: its test images may have taught the model."""
    before = (project.folder / RESULTS / "evaluation_metrics.json").read_bytes()
    private = ("--set", f"dataset.seed=7 paths.state={project.folder / 'other-state'}")
    outcome = project.call("evaluate", "--model", "simple_cnn", *ON_DATASET, *private)
    assert outcome.code == 5
    assert "may have been trained on" in outcome.err
    assert (project.folder / RESULTS / "evaluation_metrics.json").read_bytes() == before


def test_stale_normalization_is_refused(project, tmp_path):
    """Training with the statistics of another split ends with 5, and names the command that makes them anew."""
    records = project.folder / ".medvision" / "datasets" / DATASET
    shutil.copytree(records, tmp_path / "datasets" / DATASET)
    private = ("--set", f"dataset.seed=7 paths.state={tmp_path} paths.checkpoints={tmp_path / 'checkpoints'}")
    outcome = project.call("train", "--model", "simple_cnn", *ON_DATASET, *RECIPE, *private)
    assert outcome.code == 5
    assert "medvision normalize" in outcome.err
    assert not list((tmp_path / "checkpoints").rglob("*.ckpt"))


def test_verify_finds_stale_normalization(project, tmp_path):
    """`normalize --mode verify` passes on the split of the statistics, and ends with 5 on another."""
    records = project.folder / ".medvision" / "datasets" / DATASET
    shutil.copytree(records, tmp_path / "datasets" / DATASET)
    state = f"paths.state={tmp_path}"
    assert project.call("normalize", "--mode", "verify", *ON_DATASET, "--set", state).code == 0
    assert project.call("normalize", "--mode", "verify", *ON_DATASET, "--set", f"{state} dataset.seed=7").code == 5


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--set", "training.epoch=3"), "'training.epochs'"),
        (("--set", "trainig.lr=0.1"), "'training'"),
        (("--model", "resnet81"), "'resnet18'"),
        (("--dataset", "brain_mri"), "'brain-mri'"),
    ],
)
def test_what_is_unknown_is_named_with_its_nearest(project, arguments, hint):
    """An unknown setting, model or dataset ends with 2 and the nearest known name."""
    outcome = project.call("train", *ON_DATASET, *arguments)
    assert outcome.code == 2, outcome.err
    assert hint in outcome.err


@pytest.mark.parametrize("arguments", [("--policy", "stagin"), ("--policies", "missing.yaml"), ("--version", "one")])
def test_a_pipeline_refuses_before_it_trains(project, arguments):
    """A policy or file that is not there, or a version that is none, ends a pipeline with 2 before any run."""
    n_runs = len(project.runs())
    outcome = project.call("pipeline", "--model", "simple_cnn", *ON_DATASET, *arguments)
    assert outcome.code == 2
    assert len(project.runs()) == n_runs


def test_unreadable_images_stop_a_training(workshop):
    """Empty, foreign and truncated files are named, with the reason, before anything is trained: exit 5."""
    empty, foreign, truncated = sorted((workshop.folder / DATASET).rglob("*.png"))[7:10]
    empty.write_bytes(b"")
    foreign.write_bytes(b"no image at all")
    truncated.write_bytes(truncated.read_bytes()[:500])
    outcome = workshop.call("train", "--model", "simple_cnn", *ON_DATASET, *RECIPE)
    assert outcome.code == 5
    assert all(path.name in outcome.err for path in (empty, foreign, truncated))
    assert "Traceback" not in outcome.err + outcome.out
    assert [run.info.status for run in workshop.runs("train")] == ["FAILED"]
    assert not (workshop.folder / "checkpoints").exists()


def test_a_missing_package_is_named(project, tmp_path):
    """Evaluating a model that was never trained ends with 2, says what to run, and leaves a FAILED run."""
    outcome = project.call("evaluate", "--model", "simple_cnn", *ON_DATASET, "--set", f"paths.checkpoints={tmp_path}")
    assert outcome.code == 2
    assert "medvision train --model simple_cnn" in outcome.err
    assert project.runs("evaluate")[0].info.status == "FAILED"
