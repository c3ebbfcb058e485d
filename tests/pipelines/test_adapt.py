"""A dataset that medvision has never seen, brought in by one command; every later step takes its name."""

import hashlib
import json
import re
import shlex
import zipfile

import layouts
import pandas as pd
import pytest
import yaml
from layouts import CLASSES, N_IMAGES, N_PATIENTS, write_png
from medvision_project import Project

from medvision.config import load_config

# What a phantom's figures are is not of interest here.
LENIENT = {
    "value": {"accuracy": 0.01, "sensitivity": 0.01},
    "latency_p95_ms": 10000,
    "audit": "clean-or-handled",
}
RECIPE = ("--pretrained", "false", "--set", "training.epochs=8 training.lr=3e-3 evaluation.replicates=100")
PATTERN = r"(p\d+)_"
LAYOUTS = {
    "class_folders": (layouts.class_folders, (), "class folders", None),
    "split_folders": (layouts.split_folders, (), "class folders", None),
    "nested_sites": (layouts.nested_sites, (), "class folders", None),
    "flat_with_table": (layouts.flat_with_table, (), "table", N_PATIENTS),
    "labels_in_names": (layouts.labels_in_names, ("--label-pattern", "^([a-z]+)-"), "file names", None),
    "dicom": (layouts.dicom, ("--label-tag", "BodyPartExamined"), "DICOM tag", N_PATIENTS),
    "dicom_with_table": (layouts.dicom_with_table, ("--window", "0,2000"), "table", N_PATIENTS),
    "nifti": (layouts.nifti, (), "class folders", N_PATIENTS),
    "medmnist.npz": (layouts.medmnist, (), "table", None),
    "zipped.zip": (layouts.zipped, (), "class folders", None),
    "with_masks": (layouts.with_masks, (), "class folders", None),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Return a project into which datasets are brought, each under its own name."""
    project = Project(tmp_path_factory.mktemp("shop"))
    values = yaml.safe_load((project.folder / "config" / "validation.yaml").read_text())
    values["policies"]["staging"] = LENIENT
    project.write("config/validation.yaml", yaml.safe_dump(values))
    return project


@pytest.fixture
def folder(tmp_path, request):
    """Return a dataset of class folders that is called as its test is."""
    root = tmp_path / request.node.name[:60].strip("_")
    layouts.class_folders(root)
    return root


def adapt(project, path, *options):
    """Bring a dataset in; return the outcome."""
    return project.call("adapt", "--dataset-path", str(path), *RECIPE, *options)


def settings_of(project, name):
    return project.folder / "config" / "datasets" / f"{name}.yaml"


def records_of(project, name):
    return project.folder / ".medvision" / "datasets" / name


def read_settings(project, name, monkeypatch):
    """Return the settings that a later step has by the dataset's name alone."""
    monkeypatch.chdir(project.folder)
    return load_config(dataset=name)


def tree(folder):
    """Return a hash of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(shop, tmp_path, monkeypatch, name):
    """Each layout is read whole: labels, patients and sides; its settings lead every later step to the images."""
    make, options, labels_from, n_patients = LAYOUTS[name]
    make(tmp_path / name)
    outcome = adapt(shop, tmp_path / name, *options, "--json")
    assert outcome.code == 0, outcome.err
    record, stem = json.loads(outcome.out), name.partition(".")[0]
    counts = record["audit"]["split_counts"]
    assert (record["dataset"], record["labels_from"]) == (stem, labels_from)
    assert (record["audit"]["n_images"], record["audit"]["n_patients"]) == (N_IMAGES, n_patients)
    assert sum(sum(side.values()) for side in counts.values()) + record["audit"]["n_dropped"] == N_IMAGES
    assert all(len(side) == len(CLASSES) for side in counts.values())
    settings = read_settings(shop, stem, monkeypatch)
    assert settings.dataset_path.is_dir() and settings.training.pretrained is False
    brought = {"flat_with_table": ("sex", "age"), "nested_sites": ("site",)}
    assert settings.evaluation.subgroups == brought.get(name, ())
    made = {path.name for path in records_of(shop, stem).iterdir()}
    assert {"manifest.parquet", "split.parquet", "audit.json", "normalization_stats.json"} < made


def test_masks_are_said(shop, tmp_path):
    """Files that are no images of the dataset are counted, on the console and in the summary."""
    layouts.with_masks(tmp_path / "masked")
    outcome = adapt(shop, tmp_path / "masked")
    told = f"Not used: {N_IMAGES} masks of images beside them."
    assert told in outcome.out
    assert told in (records_of(shop, "masked") / "adaptation_summary.md").read_text()


def test_modality_is_read(shop, tmp_path):
    """That the images are CT is read from the files, and what is proposed for CT is proposed."""
    layouts.dicom_with_table(tmp_path / "tomography")
    outcome = adapt(shop, tmp_path / "tomography")
    assert "transform.brightness = 0.05   (CT values are Hounsfield units" in outcome.out


def test_a_leak_is_said_and_handled(shop, tmp_path):
    """A patient on two sides of the given split is named a leak in the summary, with what was done."""
    root = tmp_path / "leaky"
    layouts.split_folders(root)
    moved = sorted((root / "Training" / "glioma").glob("*_1.png"))[0]
    moved.rename(root / "Testing" / "glioma" / moved.name)
    outcome = adapt(shop, root, "--patient-pattern", r"^(\d+)_")
    summary = (records_of(shop, "leaky") / "adaptation_summary.md").read_text()
    assert outcome.code == 0 and "1 leak among them" in summary
    assert "have their patient in train" in summary and "1 leaking train and val rows are left out" in summary


def test_the_summary_names_no_place(shop, folder):
    """The summary, which is recorded, says where the settings are by their place in the project."""
    assert adapt(shop, folder).code == 0
    summary = (records_of(shop, folder.name) / "adaptation_summary.md").read_text()
    assert f"- settings: config/datasets/{folder.name}.yaml" in summary.replace("\\", "")
    assert str(shop.folder) not in summary


def test_dry_run_changes_nothing(shop, folder):
    """Not one byte of the project is another after a dry run, which says what would be written."""
    before = tree(shop.folder)
    outcome = adapt(shop, folder, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "Recipe for" in outcome.out and "would be written" in outcome.out
    assert "aved in" not in outcome.out
    assert tree(shop.folder) == before


def test_dry_run_of_an_archive(shop, tmp_path):
    """An archive is unpacked aside: before it is brought in, and after, when its file would stay as it is."""
    layouts.zipped(tmp_path / "packed.zip")
    assert "would be written." in adapt(shop, tmp_path / "packed.zip", "--dry-run").out
    assert adapt(shop, tmp_path / "packed.zip").code == 0
    before = tree(shop.folder)
    outcome = adapt(shop, tmp_path / "packed.zip", "--dry-run")
    assert "would be unchanged." in outcome.out, outcome.err
    assert "Unpacked in" not in outcome.out
    assert tree(shop.folder) == before


@pytest.mark.parametrize("name", ["class_folders", "dicom_with_table", "zipped.zip"])
def test_twice_is_once(shop, tmp_path, name):
    """The second run leaves settings, records and summary as they were, to the byte."""
    make, options, *_ = LAYOUTS[name]
    path, stem = tmp_path / f"twice_{name}", f"twice_{name.partition('.')[0]}"
    make(path)
    assert adapt(shop, path, *options).code == 0
    places = (settings_of(shop, stem).parent, records_of(shop, stem))
    before = [tree(place) for place in places]
    outcome = adapt(shop, path, *options)
    assert outcome.code == 0 and f"{stem}.yaml: unchanged" in outcome.out
    assert [tree(place) for place in places] == before


def test_a_changed_file_is_kept(shop, folder, monkeypatch):
    """What a person has written stays, to the byte; it holds also against options, and each difference is said."""
    assert adapt(shop, folder).code == 0
    file = settings_of(shop, folder.name)
    mine = file.read_text().replace("horizontal_flip: 0.5", "horizontal_flip: 0.25")
    file.write_text(mine)
    outcome = adapt(shop, folder, "--patient-pattern", PATTERN)
    assert file.read_text() == mine
    assert "the file has 0.25" in outcome.out and "the file has None" in outcome.out
    assert f"{folder.name}.yaml: kept as it was" in outcome.out
    summary = (records_of(shop, folder.name) / "adaptation_summary.md").read_text()
    assert "| `transform.horizontal_flip` | 0.25 | 0.5 |" in summary
    # The records are of the file's settings: later steps have no others.
    assert "patients unknown" in outcome.out


def test_new_options_replace_a_recipe_that_nobody_changed(shop, folder, monkeypatch):
    """A suggested pattern is not applied; given with the next run it is, and that run's settings are written."""
    first = adapt(shop, folder)
    option = next(line for line in first.out.splitlines() if "If that is right, add:" in line).partition("add: ")[2]
    assert "30 groups" in first.out and "patients unknown" in first.out
    assert read_settings(shop, folder.name, monkeypatch).dataset.patient_pattern is None
    second = adapt(shop, folder, *shlex.split(option))
    assert f"{N_PATIENTS} patients" in second.out and "written anew" in second.out
    pattern = read_settings(shop, folder.name, monkeypatch).dataset.patient_pattern
    assert pattern == shlex.split(option)[1]
    third = adapt(shop, folder)
    assert "dataset.patient_pattern is no longer set" in third.out


def test_wrong_number_of_classes(shop, folder):
    """Another number of classes than was said stops it before anything is written, and the classes are named."""
    outcome = adapt(shop, folder, "--num-classes", "4")
    assert outcome.code == 5
    assert "Expected 4 classes" in outcome.err and "found 2: glioma, meningioma" in outcome.err
    assert not settings_of(shop, folder.name).exists()


def test_right_number_of_classes(shop, folder):
    """The right number changes nothing; size and batch that were given are what the file says."""
    outcome = adapt(shop, folder, "--num-classes", "2", "--img-size", "48", "--batch-size", "8", "--skip-normalization")
    assert outcome.code == 0
    values = yaml.safe_load(settings_of(shop, folder.name).read_text())
    assert (values["transform"]["image_size"], values["training"]["batch_size"]) == (48, 8)
    assert not (records_of(shop, folder.name) / "normalization_stats.json").exists()


def test_another_folder_of_the_name_is_refused(shop, folder, tmp_path):
    """Settings of images elsewhere are not mixed with these: refused, with the way out, which works."""
    assert adapt(shop, folder, "--name", "taken").code == 0
    layouts.class_folders(tmp_path / "other" / "taken")
    outcome = adapt(shop, tmp_path / "other" / "taken")
    assert outcome.code == 2 and "Give --name NAME" in outcome.err
    assert adapt(shop, tmp_path / "other" / "taken", "--name", "taken2").code == 0


def test_a_hand_written_file_without_a_path(shop, tmp_path):
    """A file that does not say where the images are stays, and the next command says it."""
    root = tmp_path / "with a blank"
    layouts.class_folders(root)
    shop.write("config/datasets/mine.yaml", "dataset:\n  patient_pattern: '(p\\d+)_'\n")
    outcome = adapt(shop, root, "--name", "mine")
    assert outcome.code == 0 and f"{N_PATIENTS} patients" in outcome.out
    assert f"-P dataset=mine -P 'dataset_path={root}'" in outcome.out


def make_empty(root):
    root.mkdir()


def make_one_class(root):
    write_png(root, "a/1.png", layouts.slices()[0].pixels)


def make_unreadable(root):
    layouts.class_folders(root)
    (root / "glioma" / "broken.png").write_bytes(b"no image")


def make_table_without_label(root):
    layouts.flat_with_table(root)
    rows = pd.read_csv(root / "labels.csv").drop(columns="diagnosis")
    rows.to_csv(root / "labels.csv", index=False)


def make_damaged_zip(root):
    root.write_bytes(b"PK\x03\x04 and no more")


def make_climbing_zip(root):
    with zipfile.ZipFile(root, "w") as file:
        file.writestr("../out.png", b"")


def make_people(root):
    """Write John_Doe/left.png: folders of people with the same views in each."""
    for person in ("John_Doe", "Maria_Rossi", "Pierre_Dupont"):
        for view, each in zip(("left", "right"), layouts.slices(), strict=False):
            write_png(root, f"{person}/{view}.png", each.pixels)


def test_names_of_people_are_written_nowhere(shop, tmp_path):
    """Folders of people are refused with the ways out, and no byte of the project then holds a name."""
    make_people(tmp_path / "people")
    outcome = adapt(shop, tmp_path / "people")
    assert outcome.code == 5 and "--labels" in outcome.err and "--patient-pattern" in outcome.err
    files = [path for path in shop.folder.rglob("*") if path.is_file()]
    assert not any(name in path.read_bytes() for path in files for name in (b"John_Doe", b"Dupont"))


@pytest.mark.parametrize(
    ("make", "options", "code", "said"),
    [
        (make_empty, (), 5, "No images in"),
        (make_one_class, (), 5, "Only one class was found: a"),
        (make_unreadable, (), 5, "1 of 61 files are not readable images"),
        (make_table_without_label, (), 5, "Say which it is: dataset.columns.label"),
        (make_damaged_zip, (), 5, "is not a zip, or damaged"),
        (make_climbing_zip, (), 5, "would lie outside its folder"),
        (layouts.labels_in_names, ("--label-pattern", "(x+)"), 5, "matches none of the 60 files"),
        (layouts.labels_in_names, ("--label-pattern", "x"), 2, "needs one group in parentheses"),
        (layouts.class_folders, ("--label-tag", "PatientName"), 2, "is not read, since it may name a person"),
        (layouts.class_folders, ("--patient-pattern", "(zzz)"), 5, "matches none of the 60 file names"),
        (layouts.class_folders, ("--labels", "absent.csv"), 5, "absent.csv"),
        (layouts.dicom_with_table, ("--window", "liver"), 2, "window"),
        (lambda root: None, (), 2, "is not a folder"),
    ],
)
def test_bad_input(shop, tmp_path, make, options, code, said):
    """What can't be brought in is refused with what to do, and no settings are left."""
    make(tmp_path / "bad_input")
    outcome = adapt(shop, tmp_path / "bad_input", *options)
    assert outcome.code == code and said in outcome.err, outcome
    assert "Traceback" not in outcome.err
    assert not settings_of(shop, "bad_input").exists()


@pytest.mark.parametrize(
    "name",
    [
        "dicom_with_table",
        pytest.param("flat_with_table", marks=pytest.mark.slow),
        pytest.param("nifti", marks=pytest.mark.slow),
        pytest.param("zipped.zip", marks=pytest.mark.slow),
    ],
)
def test_the_pipeline_goes_by_the_name(shop, tmp_path, name):
    """With the dataset's name alone the pipeline trains, judges and registers, by the recipe and the same split."""
    make, options, *_ = LAYOUTS[name]
    make(tmp_path / f"piped_{name}")
    stem = f"piped_{name.partition('.')[0]}"
    assert adapt(shop, tmp_path / f"piped_{name}", *options).code == 0
    split = (records_of(shop, stem) / "split.parquet").read_bytes()
    outcome = shop.call("pipeline", "--dataset", stem)
    assert outcome.code == 0, outcome.err
    assert "Training simple_cnn" in outcome.out
    assert (records_of(shop, stem) / "split.parquet").read_bytes() == split
    assert (f"{stem}-simple_cnn", "1") in {(name, str(version)) for name, version in shop.versions()}


@pytest.mark.slow
def test_mlflow_run_and_what_it_says_comes_next(shop, folder):
    """`mlflow run . -e adapt` brings a dataset in, and the command that it prints runs as it is printed."""
    parameters = ("-P", f"dataset_path={folder}", "-P", "pretrained=false", "-P", f"patient_pattern={PATTERN}")
    few = ("-P", "set=training.epochs=8 training.lr=3e-3 evaluation.replicates=100 tracking.wandb=false")
    outcome = shop.run("mlflow", "run", ".", "-e", "adapt", "--env-manager", "local", *parameters, *few)
    assert outcome.code == 0, outcome.err
    assert f"{N_PATIENTS} patients" in outcome.out
    command = re.search(r"^Next: (.*)$", outcome.out, re.MULTILINE)[1]
    following = shop.run(*shlex.split(command))
    assert following.code == 0, following.err
    assert f"{folder.name}-simple_cnn" in {name for name, _ in shop.versions()}
