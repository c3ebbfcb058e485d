"""What an audit finds once a model was trained and tested: the test set stays as it was locked."""

import numpy as np
import pandas as pd
import pytest
from medvision_project import RECIPE, Project
from PIL import Image

from medvision.config import Config
from medvision.data.duplicates import add_pairs, save_pairs
from medvision.data.phantom import make_phantom
from medvision.tracking.recorder import Recorder
from medvision.validation.test_ledger import fingerprint_test_set, look
from pipelines.audit import run_audit
from pipelines.dataset import prepare_dataset

NAME = "mirrored"
ON_MODEL = ("--model", "simple_cnn", "--dataset-path", NAME)
BRIEF = ("--set", "training.epochs=1 training.pretrained=false evaluation.replicates=100")


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """Return a project, trained and evaluated before anybody looked for the copies that its dataset is full of."""
    project = Project(tmp_path_factory.mktemp("late"))
    (project.folder / "brain-phantom").rename(project.folder / NAME)
    for path in sorted((project.folder / NAME).glob("*/*.png")):
        copy = Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        copy.save(path.with_name(f"copy-of-{path.stem}.jpg"), quality=80)
    _train_and_evaluate(project)
    project.before = sides(project)
    project.audited = project.call("audit", "--dataset-path", NAME, *BRIEF)
    assert project.audited.code == 0, project.audited.err
    return project


def _train_and_evaluate(project):
    for step in (("train", *ON_MODEL, *RECIPE), ("evaluate", *ON_MODEL)):
        outcome = project.call(*step, *BRIEF)
        assert outcome.code == 0, outcome.err


def sides(project):
    """Return the side of each image."""
    table = pd.read_parquet(project.folder / ".medvision" / "datasets" / NAME / "split.parquet")
    return table.set_index("image_id").side


def test_the_test_set_stays(late):
    """Copies that are found after the first look change no test row: those in train and val are left out."""
    after = sides(late)
    assert ((after == "test") == (late.before == "test")).all()
    moved = after[after != late.before]
    assert len(moved) > 0 and set(moved) == {"dropped"}


def test_the_audit_says_what_comes_next(late):
    """Where the split has changed, the audit names both steps that are to be done again."""
    assert "The split has changed" in late.audited.out
    assert "medvision normalize" in late.audited.out and "train again" in late.audited.out


def test_the_old_model_is_refused(late):
    """A model of the split before is refused with the copies as a possible reason, and with what to do."""
    said = late.call("evaluate", *ON_MODEL, *BRIEF)
    assert said.code == 5 and "altered copies" in said.err and "train again" in said.err


def test_a_new_model_is_evaluated(late):
    """A model that is trained after the audit is scored on the same test set: looks go on being counted."""
    assert late.call("normalize", "--dataset-path", NAME, *BRIEF).code == 0
    _train_and_evaluate(late)
    ledger = late.folder / ".medvision" / "datasets" / NAME / "test_ledger.jsonl"
    assert len(ledger.read_text().splitlines()) == 2


@pytest.fixture
def looked_at(tmp_path):
    """Return the settings of a dataset, locked with the copies of a first examination; a second one found more."""
    make_phantom(tmp_path / "data", patients_per_class=12, image_size=32)
    config = settings(tmp_path)
    manifest = prepare_dataset(config).manifest
    rows = np.arange(len(manifest.rows))
    found = pd.DataFrame({"i": rows[:-2], "j": rows[2:], "likeness": 0.9, "kind": "copy"})
    first = add_pairs(None, found[:3])
    save_pairs(first, manifest, config.dataset_dir)
    before = prepare_dataset(config)
    locked = fingerprint_test_set(before.manifest, before.split)
    look(config.dataset_dir, step="evaluate", model="a", package_digest="p", test_fingerprint=locked)
    save_pairs(add_pairs(first, found[3::40]), manifest, config.dataset_dir)
    return config, locked


def settings(folder, **dataset):
    """Return a Config for the dataset in a folder."""
    return Config.model_validate(
        {"dataset": {"path": folder / "data", **dataset}, "performance": {"workers": 1}, "paths": {"state": folder}}
    )


def test_a_later_examination(looked_at):
    """What a second examination finds leaves the test set, too, that was locked after the first one."""
    config, locked = looked_at
    after = prepare_dataset(config)
    assert fingerprint_test_set(after.manifest, after.split) == locked
    test, train = (set(after.manifest.rows.group.iloc[after.split.indices(side)]) for side in ("test", "train"))
    assert not test & train


def test_an_audit_that_is_saved_prepares_nothing_anew(tmp_path):
    """The first audit writes the split again, with the copies that it found; one that finds itself saved does not."""
    make_phantom(tmp_path / "data", patients_per_class=12, image_size=32)
    config = settings(tmp_path)
    recorder, split = Recorder(tmp_path / "outbox"), config.dataset_dir / "split.parquet"
    written = []
    for _ in range(2):
        dataset = prepare_dataset(config)
        before = split.stat().st_mtime_ns
        audited = run_audit(config, recorder, dataset)
        assert audited.audit.is_deep
        written.append(split.stat().st_mtime_ns > before)
    assert written == [True, False]


def test_another_seed_is_another_test_set(looked_at, tmp_path):
    """The lock excuses no other change: with another seed the split is another, and is refused at the next look."""
    _, locked = looked_at
    other = prepare_dataset(settings(tmp_path, seed=43))
    assert fingerprint_test_set(other.manifest, other.split) != locked
