"""Settings are checked once, refused with the nearest known key, frozen, and never executed."""

import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from medvision.config import Config, load_config, parse_overrides
from medvision.errors import ConfigInvalid


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Work in an empty project."""
    (tmp_path / "MLproject").write_text("name: test\n")
    (tmp_path / "config" / "datasets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def load(project):
    """Load a config of this text, in less than 2 s."""

    def load(text, **options):
        path = project / "own.yaml"
        path.write_text(text)
        start = time.process_time()
        try:
            return load_config(path, **options)
        finally:
            assert time.process_time() - start < 2

    return load


def test_defaults():
    """Without a file the documented defaults hold."""
    config = load_config()
    assert config == Config()
    assert (config.dataset.seed, config.dataset.val_fraction, config.dataset.test_fraction) == (42, 0.15, 0.15)
    assert (config.training.patience, config.training.min_delta) == (15, 0.0005)
    assert config.dataset.on_leak == "drop" and config.dataset.max_rejected_fraction == 0


def test_shipped_files_are_valid(monkeypatch):
    """The config files of the project load."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    for name in ("config.yaml", "optimized_config.yaml"):
        load_config(root / "config" / name)


def test_order_of_sources(project):
    """Overrides win over the dataset's file, which wins over the config file, which wins over the defaults."""
    (project / "config" / "config.yaml").write_text("training: {epochs: 2, batch_size: 2, lr: 0.2}\n")
    (project / "config" / "datasets" / "brain.yaml").write_text("training: {batch_size: 3, lr: 0.3}\n")
    config = load_config(dataset="brain", overrides={"training.lr": 0.4})
    assert (config.training.epochs, config.training.batch_size, config.training.lr) == (2, 3, 0.4)
    assert config.training.patience == 15 and config.dataset_name == "brain"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-4", 1e-4), ("0.1", 0.1), ("true", True), ("3", 3), ("resnet18", "resnet18"), ("", None), ("a=b", "a=b")],
)
def test_override_values(text, expected):
    """Values of --set are read as numbers, truth values or text; 1e-4 is a number."""
    assert parse_overrides([f"training.lr={text}"]) == {"training.lr": expected}


@pytest.mark.parametrize("assignment", ["training.lr", "=1", ""])
def test_malformed_override(assignment):
    """An assignment without key or sign is refused with an example."""
    with pytest.raises(ConfigInvalid, match=r"KEY=VALUE, for example training\.lr=1e-4"):
        parse_overrides([assignment])


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.epoch", "training.epochs"),
        ("training.batchsize", "training.batch_size"),
        ("training.learning_rate", "training.lr"),
        ("training.image_size", "transform.image_size"),
        ("trainig.lr", "training"),
        ("dataset.onleak", "dataset.on_leak"),
        ("traning", "training"),
        ("epochs", "training.epochs"),
    ],
)
def test_unknown_key_names_the_nearest(load, key, nearest):
    """An unknown key, in a file or an override, is refused with its name and the nearest known one."""
    with pytest.raises(ConfigInvalid, match=f"unknown setting.*{nearest}") as refusal:
        load_config(overrides={key: 1})
    assert key.split(".")[0] in str(refusal.value) and refusal.value.exit_code == 2
    section, _, leaf = key.partition(".")
    with pytest.raises(ConfigInvalid, match="unknown setting"):
        load(f"{section}:\n  {leaf}: 1\n" if leaf else f"{key}: 1\n")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.epochs", 0),
        ("training.epochs", "many"),
        ("training.lr", -1),
        ("training.lr", float("nan")),
        ("training.lr", float("inf")),
        ("dataset.on_leak", "ignore"),
        ("dataset.max_rejected_fraction", 1.5),
        ("dataset.patient_pattern", "person("),
        ("dataset.patient_pattern", "person"),
        ("dataset.window", "head"),
        ("dataset.window", "40,0"),
        ("training.model", None),
        ("training", 5),
        ("training.lr.x", 5),
    ],
)
def test_meaningless_value(key, value):
    """A value of the wrong type or out of range is refused with key and value."""
    with pytest.raises(ConfigInvalid, match=key.removesuffix(".x")):
        load_config(overrides={key: value})


def test_every_error_is_listed():
    """All that is wrong is said at once."""
    with pytest.raises(ConfigInvalid, match=r"(?s)training\.epochs.*dataset\.seed|dataset\.seed.*training\.epochs"):
        load_config(overrides={"training.epochs": 0, "dataset.seed": -1})


def test_frozen():
    """A loaded config can't be changed."""
    config = load_config()
    with pytest.raises(ValidationError):
        config.training.lr = 1.0
    with pytest.raises(ValidationError):
        config.training = None


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "alias"),
        ("training: &a {lr: 1}\ndataset: *a\n", "alias"),
        ("!!python/object/apply:os.system ['touch pwned']", "not valid YAML"),
        ("training: {lr: !!python/name:os.system }", "not valid YAML"),
        ("x" * 10_000_000, "larger than 100 kB"),
        ("[" * 90_000, "nested"),
        ("- " * 40_000, "nested"),
        ("{a: " * 20_000, "nested"),
        ("a: [" + "'x'," * 10_000 + "]", "unknown setting"),
        ("- training\n", "expected sections"),
        ("training", "expected sections"),
        ("a: b: c", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("1: 2\n", "1"),
        ("on: {lr: 1}\n", "True|1"),
    ],
)
def test_hostile_files_are_refused_quickly(load, project, text, message):
    """Bombs, code, giants and nonsense are refused with one clear error, and nothing is executed."""
    with pytest.raises(ConfigInvalid, match=message):
        load(text)
    assert not (project / "pwned").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "Grüße".encode("latin-1")])
def test_not_a_text(project, content):
    """A file that is not UTF-8 is refused by name."""
    (project / "own.yaml").write_bytes(content)
    with pytest.raises(ConfigInvalid, match=r"own\.yaml"):
        load_config(project / "own.yaml")


def test_missing_files(project):
    """A config file or a dataset that is not there is named, with the nearest dataset."""
    with pytest.raises(ConfigInvalid, match=r"gone\.yaml"):
        load_config(project / "gone.yaml")
    (project / "config" / "datasets" / "brain-mri.yaml").write_text("")
    with pytest.raises(ConfigInvalid, match="brain-mri"):
        load_config(dataset="brain_mri")


def test_empty_file(load):
    """An empty file means the defaults."""
    assert load("") == Config()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("brain-mri", "brain-mri"), ("Chest X-Ray (2024)", "chest-x-ray-2024"), ("_DATA_", "data"), ("a.b_c", "a.b_c")],
)
def test_dataset_name(project, folder, name):
    """The dataset's name is its folder's, made safe for file names and the registry."""
    (project / folder).mkdir()
    assert load_config(overrides={"dataset.path": project / folder}).dataset_name == name


def test_what_was_found_is_said_once(project):
    """A message that says already what was found does not say it twice; any other one gets it."""
    with pytest.raises(ConfigInvalid, match=r"for example 40,80; found 'nosuch'\.$"):
        load_config(overrides={"dataset.window": "nosuch"})
    with pytest.raises(ConfigInvalid, match=r"found 'many'\.$"):
        load_config(overrides={"training.epochs": "many"})


def test_dataset_must_be_given(project):
    """Without a dataset, or with a folder that is not there, the error says which option to give."""
    with pytest.raises(ConfigInvalid, match="--dataset-path"):
        _ = load_config().dataset_name
    with pytest.raises(ConfigInvalid, match="--dataset-path"):
        _ = load_config().dataset_path
    with pytest.raises(ConfigInvalid, match="gone is not a folder"):
        _ = load_config(overrides={"dataset.path": project / "gone"}).dataset_path


def test_paths_are_the_projects(project, monkeypatch):
    """State and results lie under the project's root, from whatever folder below it the command is run."""
    (project / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "er")
    assert load_config().paths.state == project / ".medvision"
    assert load_config(overrides={"paths.results": "/elsewhere"}).paths.results == Path("/elsewhere")
