"""What `medvision pipeline` leaves behind: runs, a registered model, and files a person can open."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from medvision_project import DATASET, MODEL, N_EPOCHS, ON_DATASET

STEPS = ("audit", "normalize", "train", "evaluate", "validate", "register")


@pytest.fixture(scope="module")
def parent(project):
    return project.runs("pipeline")[0]


@pytest.fixture(scope="module")
def runs(project, parent):
    """Return the nested runs by their step."""
    return {run.data.tags["medvision.step"]: run for run in project.children(parent)}


@pytest.fixture(scope="module")
def curves(project, runs):
    """Return the epochs' figures as the training wrote them beside its checkpoints."""
    assert runs["train"]
    return project.json("checkpoints/simple_cnn_outputs/training_history.json")


def artifacts(project, run, folder=None):
    """Return the paths of a run's artifacts."""
    found = project.client.list_artifacts(run.info.run_id, folder)
    deeper = (path for entry in found if entry.is_dir for path in artifacts(project, run, entry.path))
    return {*(entry.path for entry in found if not entry.is_dir), *deeper}


def test_every_step_is_a_finished_nested_run(project, parent, runs):
    """A pipeline is one run with six nested in it, in one experiment, and all of them are FINISHED."""
    assert sorted(runs) == sorted(STEPS)
    assert len(project.children(parent)) == len(STEPS)
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    assert {run.info.experiment_id for run in runs.values()} == {parent.info.experiment_id}


def test_the_pipeline_says_what_it_did(project):
    """Each step has its heading, and the last word is how the registered model is served."""
    headings = [line.removeprefix("== ") for line in project.outcome.out.splitlines() if line.startswith("== ")]
    assert headings == [f"{step} simple_cnn" for step in STEPS]
    assert f'mlflow models serve -m "models:/{MODEL}/1" --env-manager local' in project.outcome.out


def test_the_resolved_config_is_recorded(runs):
    """Every setting stands in the train run under its dotted name, with what the catalog filled in."""
    params = runs["train"].data.params
    expected = {
        "training.model": "simple_cnn",
        "training.epochs": str(N_EPOCHS),
        "training.strategy": "full",
        "training.optimizer": "adamw",
        "training.lr": "0.003",
        "transform.image_size": "32",
        "dataset.seed": "42",
    }
    assert {name: params.get(name) for name in expected} == expected


def test_the_best_epoch_is_tagged(runs, curves):
    """Tags name accuracy, epoch and path of the best model, and the accuracy of the package made from it."""
    tags = runs["train"].data.tags
    best = max(curves, key=lambda figures: figures["val_accuracy"])
    assert float(tags["best_val_accuracy"]) == pytest.approx(best["val_accuracy"], abs=1e-6)
    assert int(tags["best_model_epoch"]) == best["epoch"]
    assert tags["best_model_path"] == "best_model/best_model.pth"


def test_the_package_scores_as_the_training_did(runs):
    """The package as it lies on disk has the val accuracy that was seen in training."""
    tags = runs["train"].data.tags
    assert tags["final_best_val_accuracy"] == tags["best_val_accuracy"]


def test_the_package_knows_what_it_was_made_for(project):
    """The package says which kinds of files it has learnt from, and what its images are like."""
    package = project.json("checkpoints/simple_cnn_outputs/package/package.json")
    assert package["formats"] == ["PNG"]
    assert package["domain"] is not None


def test_every_run_names_its_commit(project, parent, runs):
    """All runs carry the commit of the project's checkout."""
    commits = {run.data.tags["mlflow.source.git.commit"] for run in (parent, *runs.values())}
    assert commits == {project.commit}


@pytest.mark.parametrize(("step", "context"), [("train", "train"), ("evaluate", "test")])
def test_the_dataset_is_an_input(project, runs, step, context):
    """The runs that used the images name the dataset and the split's fingerprint, and what they used it for."""
    (used,) = project.client.get_run(runs[step].info.run_id).inputs.dataset_inputs
    fingerprint = project.json(f".medvision/datasets/{DATASET}/audit.json")["split_fingerprint"]
    assert (used.dataset.name, used.dataset.digest) == (DATASET, fingerprint[: len(used.dataset.digest)])
    assert len(used.dataset.digest) >= 32
    assert [tag.value for tag in used.tags] == [context]
    assert runs[step].data.tags["medvision.split_fingerprint"] == fingerprint


def test_the_audit_looks_at_every_image(project, runs):
    """The audit of a pipeline is the deep one, and its report is an artifact of the audit's run."""
    assert project.json(f".medvision/datasets/{DATASET}/audit.json")["is_deep"]
    recorded = {item.path for item in project.client.list_artifacts(runs["audit"].info.run_id, "data")}
    assert {"data/audit.json", "data/audit_report.html"} <= recorded


def test_checkpoint_and_package_are_artifacts(project, runs):
    """The train run holds the best checkpoint and the package made from it."""
    assert {
        "best_model/best_model.pth",
        "final_best_model/package.json",
        "final_best_model/weights.safetensors",
        "training_history.json",
    } <= artifacts(project, runs["train"])


def test_evaluation_and_verdict_are_artifacts(project, runs):
    """The evaluate run holds report, figures and predictions of this evaluation; the validate run holds the verdict."""
    assert {
        "evaluation/evaluation_metrics.json",
        "evaluation/evaluation_report.txt",
        "evaluation/confusion_matrix.png",
        "evaluation/per_class_metrics.png",
        "evaluation/predictions.parquet",
    } <= artifacts(project, runs["evaluate"])
    assert {"validation/medical_validation.json", "validation/medical_validation.txt"} <= artifacts(
        project, runs["validate"]
    )


@pytest.mark.parametrize("name", ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "gradient_norm"])
def test_every_epoch_is_recorded_once(project, runs, curves, name):
    """MLflow has the figures of each epoch exactly once, as the training saw them."""
    history = project.client.get_metric_history(runs["train"].info.run_id, name)
    seen = sorted((point.step, point.value) for point in history)
    assert seen == [(figures["epoch"], pytest.approx(figures[name])) for figures in curves]
    assert len(seen) == N_EPOCHS


@pytest.mark.parametrize("step", STEPS)
def test_every_run_has_hardware_figures(runs, step):
    """Each run shows the load of the machine."""
    assert {"system/cpu_percent", "system/memory_percent"} <= set(runs[step].data.metrics)


def test_the_model_is_logged_with_a_signature(project, runs):
    """The train run has a logged model: base64 images in; label, confidence and probabilities out."""
    (output,) = project.client.get_run(runs["train"].info.run_id).outputs.model_outputs
    model = project.client.get_logged_model(output.model_id)
    assert (model.name, str(model.status)) == (MODEL, "READY")
    described = (project.folder / "mlruns" / DATASET / "models" / model.model_id / "artifacts" / "MLmodel").read_text()
    assert all(name in described for name in ('"image"', '"label"', '"confidence"', '"probabilities"'))


def test_the_model_is_registered(project, runs):
    """The registry holds <dataset>-<model>, version 1.0.0, under the alias v1-0-0, linked to its training."""
    version = project.client.get_model_version_by_alias(MODEL, "v1-0-0")
    assert (int(version.version), version.tags["version"]) == (1, "1.0.0")
    assert version.run_id == runs["train"].info.run_id
    assert "passed medical validation" in version.description


def test_wandb_has_an_offline_run_of_each_run(project, parent, runs):
    """Without a key W&B keeps each run offline, under an id that stands in MLflow."""
    for run in (parent, *runs.values()):
        (folder,) = (project.folder / "wandb").glob(f"offline-run-*-{run.data.tags['wandb.run_id']}")
        assert list(folder.glob("*.wandb"))


def test_wandb_holds_the_checkpoint(project, runs):
    """best_model.pth is among the files of the training's W&B run."""
    (folder,) = (project.folder / "wandb").glob(f"offline-run-*-{runs['train'].data.tags['wandb.run_id']}")
    checkpoint = torch.load(folder / "files" / "best_model.pth", weights_only=True)
    assert checkpoint["epoch"] == int(runs["train"].data.tags["best_model_epoch"])


def test_tensorboard_has_the_curves(project, runs, curves):
    """TensorBoard's event file of the training holds the accuracy of each epoch."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    key = runs["train"].data.tags["medvision.run_key"]
    (folder,) = (project.folder / "runs" / DATASET).glob(f"train*-{key[:8]}")
    events = EventAccumulator(str(folder)).Reload()
    points = [(point.step, point.value) for point in events.Scalars("val_accuracy")]
    assert points == [(figures["epoch"], pytest.approx(figures["val_accuracy"])) for figures in curves]


@pytest.mark.parametrize(
    "name",
    [
        "evaluation_metrics.json",
        "evaluation_report.txt",
        "confusion_matrix.png",
        "per_class_metrics.png",
        "predictions.parquet",
        "medical_validation.json",
        "medical_validation.txt",
    ],
)
def test_results_are_files_a_person_can_open(project, name):
    """The results folder holds figures, report, pictures, predictions and verdict."""
    content = (project.folder / "results" / "simple_cnn" / name).read_bytes()
    assert len(content) > 100
    assert content.startswith(b"\x89PNG") == name.endswith(".png")


def test_figures_can_be_computed_from_the_predictions(project):
    """The accuracy of the report is that of the table of predictions."""
    table = pq.read_table(project.folder / "results/simple_cnn/predictions.parquet").to_pandas()
    evaluation = project.json("results/simple_cnn/evaluation_metrics.json")
    assert (table.y_true == table.y_pred).mean() == evaluation["overall"]["accuracy"]["value"]
    assert len(table) == evaluation["n"]


def test_the_parent_shows_the_key_figures(project, parent):
    """The pipeline's own run shows the test accuracy, and what each step took."""
    evaluation = project.json("results/simple_cnn/evaluation_metrics.json")
    assert parent.data.metrics["test/accuracy"] == pytest.approx(evaluation["overall"]["accuracy"]["value"])
    assert {f"seconds/{step}" for step in ("train", "evaluate")} <= set(parent.data.metrics)


def test_no_file_name_leaves_the_project(project):
    """Names of image files, which may name patients, stand nowhere in MLflow, W&B or TensorBoard."""
    names = {path.stem.encode() for path in (project.folder / DATASET).rglob("*.png")}
    folders = [project.folder / name for name in ("mlruns", "wandb", "runs")]
    written = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in (*written, *project.folder.glob("mlflow.db*")):
        content = path.read_bytes()
        assert not [name for name in names if name in content], path


def test_no_file_name_is_in_the_predictions(project):
    """The table of predictions names images and patients by keys only."""
    table = pq.read_table(project.folder / "results/simple_cnn/predictions.parquet").to_pandas()
    assert not (table.image_id.str.contains("phantom") | table.patient_key.str.contains("phantom")).any()


def test_the_verdict_is_about_this_package(project, runs):
    """Evaluation, verdict and registered version name the digest of one package and the fingerprint of one split."""
    verdict = project.json("results/simple_cnn/medical_validation.json")
    (tags,) = (tags for (name, number), tags in project.versions().items() if (name, int(number)) == (MODEL, 1))
    digests = {verdict["package_digest"], tags["medvision.package_digest"]}
    digests |= {runs[step].data.tags["medvision.package_digest"] for step in ("evaluate", "validate")}
    assert len(digests) == 1
    assert verdict["split_fingerprint"] == tags["medvision.split_fingerprint"]


@pytest.mark.slow
def test_json_is_one_document_on_stdout(project):
    """With --json a step prints its record as JSON on standard output, and nothing else there."""
    outcome = project.run("medvision", "audit", "--json", *ON_DATASET, "--set", "tracking.wandb=false")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["n_images"] == 144
