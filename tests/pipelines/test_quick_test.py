"""`medvision test`: accuracy and confusion matrix at a glance, and a look that is counted like any other."""

import json
import shutil

import pytest
from medvision_project import DATASET, ON_DATASET, PAIR_SETTINGS

from medvision.evaluation.report import render_confusion
from medvision.validation.test_ledger import check_chain

MODEL = ("--model", "simple_cnn")


class Looked:
    """One model on a ledger of its own, on which `test`, `evaluate` and `validate` have run, in this order."""

    def __init__(self, project, folder):
        self.project, self.folder = project, folder
        shutil.copytree(project.folder / ".medvision", folder / "state")
        self.before = len(self.entries())
        self.tested = self.run("test")
        self.left_by_test = list((folder / "results" / "simple_cnn").iterdir())
        self.evaluated = self.run("evaluate")
        self.details = json.loads((folder / "results" / "simple_cnn" / "evaluation_details.json").read_text())
        self.validated = self.run("validate", "--policy", "easy")

    def run(self, step, *options):
        """Run a step on the model."""
        paths = f"paths.results={self.folder / 'results'} paths.state={self.folder / 'state'}"
        outcome = self.project.call(step, *MODEL, *options, *ON_DATASET, "--set", f"{PAIR_SETTINGS} {paths}")
        assert outcome.code == 0, outcome.err
        return outcome

    def entries(self):
        """Return the looks of the ledger."""
        return check_chain(self.folder / "state" / "datasets" / DATASET)

    def read(self, name):
        """Return the text of a file of the results."""
        return (self.folder / "results" / "simple_cnn" / name).read_text()


@pytest.fixture(scope="module")
def looked(pair, tmp_path_factory):
    return Looked(pair, tmp_path_factory.mktemp("looked"))


@pytest.fixture(scope="module")
def evaluation(looked):
    return json.loads(looked.read("evaluation_metrics.json"))


def test_a_quick_test_says_the_accuracy(looked, evaluation):
    """The accuracy that it prints, with its interval, is that of the full evaluation."""
    accuracy = evaluation["overall"]["accuracy"]
    said = looked.tested.out.splitlines()[0]
    assert f"{accuracy['successes']} of {accuracy['n']} right, accuracy {accuracy['value']:.3f}" in said


def test_a_quick_test_shows_the_confusion_matrix(looked, evaluation):
    """The confusion matrix that it prints is that of the full evaluation."""
    assert render_confusion(evaluation["classes"], evaluation["confusion"]) in looked.tested.out


def test_a_quick_test_draws_nothing(looked):
    """It leaves its record alone: a report and pictures would take the time that it saves."""
    assert [path.name for path in looked.left_by_test] == ["quick_test.json"]


def test_a_quick_test_is_recorded(looked, evaluation):
    """Its run in MLflow is FINISHED and has the accuracy."""
    run = looked.project.runs("test")[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == pytest.approx(evaluation["overall"]["accuracy"]["value"])


def test_every_look_is_counted(looked):
    """`test`, `evaluate` and `validate` each add one entry to the ledger of the test set."""
    assert [entry.step for entry in looked.entries()[looked.before :]] == ["test", "evaluate", "validate"]


def test_every_step_says_how_often_it_was_looked_at(looked):
    """The quick test, the report and the verdict show the number of looks, their own included."""
    n = looked.before
    assert f"looked at {n + 1} times" in looked.tested.out
    assert looked.details["looks"] == n + 2
    assert f"looked at {n + 2} times" in looked.read("evaluation_report.txt")
    assert json.loads(looked.read("medical_validation.json"))["looks"] == n + 3
    assert f"opened {n + 3} times" in looked.read("evaluation_report.html")


def test_a_quick_test_is_a_record(looked):
    """With --json the record, confusion matrix and looks in it, is one document on standard output."""
    record = json.loads(looked.run("test", "--json").out)
    assert sum(map(sum, record["confusion"])) == record["accuracy"]["n"]
    assert record["looks"] == len(looked.entries())
