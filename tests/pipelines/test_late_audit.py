"""What an audit finds once a model was trained and tested: the test set stays as it was locked."""

import pandas as pd
import pytest
from medvision_project import RECIPE, Project
from PIL import Image

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
