"""`medvision ensemble`: trained models joined into one, which is a model like any other."""

import base64

import mlflow
import numpy as np
import pandas as pd
import pytest
from medvision_project import CRITICAL, DATASET, ON_DATASET, PAIR, PAIR_SETTINGS

from medvision.evaluation.predictions import load_predictions
from medvision.models.package import load_info, load_package

RULES = ("soft", "hard", "stacking")


class Ensembles:
    """The pair joined in each way, each ensemble evaluated, validated and registered."""

    def __init__(self, project):
        self.project, self.ended = project, {}
        for rule in RULES:
            self.ended[rule] = {
                "ensemble": self._join(rule),
                "evaluate": self._call("evaluate", "--model", rule, *ON_DATASET),
                "validate": self._call("validate", "--model", rule, "--policy", "easy", *ON_DATASET),
                "register": self._call("register", "--model", rule, "--dataset-path", DATASET),
            }

    def _join(self, rule):
        return self._call("ensemble", "--models", " ".join(PAIR), "--rule", rule, "--name", rule, *ON_DATASET)

    def _call(self, step, *options):
        return self.project.call(step, *options, "--set", PAIR_SETTINGS)

    def package(self, name):
        """Return the folder of a model's package."""
        return self.project.folder / "checkpoints" / f"{name.replace('/', '-')}_outputs" / "package"

    def predictions(self, rule):
        """Return the predictions that the evaluation left."""
        return load_predictions(self.project.folder / "results" / rule / "predictions.parquet")

    def test_images(self, rule):
        """Return the test images in base64, in the order of the predictions."""
        rows = pd.read_csv(self.project.folder / ".medvision" / "datasets" / DATASET / "files.csv")
        by_id = dict(zip(rows.image_id, rows.path, strict=True))
        paths = [self.project.folder / DATASET / by_id[image_id] for image_id in self.predictions(rule).image_ids]
        return [base64.b64encode(path.read_bytes()).decode() for path in paths]


@pytest.fixture(scope="module")
def ensembles(pair):
    return Ensembles(pair)


@pytest.fixture
def registry(pair, monkeypatch):
    """Let MLflow itself look into the project's database, in the project's folder, for the length of a test."""
    monkeypatch.chdir(pair.folder)
    mlflow.set_tracking_uri(f"sqlite:///{pair.folder / 'mlflow.db'}")
    yield
    # Which also unsets the variable that every later command would take it from.
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", ["ensemble", "evaluate", "validate", "register"])
def test_an_ensemble_goes_through_every_step(ensembles, rule, step):
    """An ensemble is evaluated, validated and registered by the commands of any model."""
    ended = ensembles.ended[rule][step]
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("rule", RULES)
def test_the_package_has_its_members(ensembles, rule):
    """The package holds both networks, as they are in their own packages, and how they are combined."""
    info, networks = load_package(ensembles.package(rule))
    assert info.combination.rule == rule
    assert [member.model for member in info.members] == [*PAIR]
    for name, network in zip(PAIR, networks, strict=True):
        own = load_package(ensembles.package(name))[1][0].state_dict()
        joined = network.state_dict()
        assert own.keys() == joined.keys()
        assert all((own[key] == joined[key]).all() for key in own)


@pytest.mark.parametrize("rule", RULES)
def test_a_member_knows_where_it_comes_from(ensembles, rule):
    """Each member names the run that trained it; the package names the run that joined them."""
    info = load_info(ensembles.package(rule))
    assert [member.run_key for member in info.members] == [load_info(ensembles.package(name)).run_key for name in PAIR]
    assert info.run_key not in {member.run_key for member in info.members}


@pytest.mark.parametrize("rule", RULES)
def test_an_ensemble_has_decisions_of_its_own(ensembles, rule):
    """Operating point and prediction sets are fitted to the ensemble's scores, not taken from a member."""
    info = load_info(ensembles.package(rule))
    assert [point.class_name for point in info.operating_points] == [CRITICAL]
    thresholds = {load_info(ensembles.package(name)).operating_points[0].threshold for name in PAIR}
    # A soft vote that gives one member all of the weight is that member.
    alone = rule == "soft" and max(info.combination.weights) > 0.999
    assert alone or info.operating_points[0].threshold not in thresholds
    assert info.conformal is not None


@pytest.mark.parametrize("rule", RULES)
def test_the_report_tells_how_members_differ(ensembles, rule):
    """The evaluation of an ensemble has the diversity of its members, in the record and in the report."""
    (pair,) = ensembles.project.json(f"results/{rule}/evaluation_details.json")["diversity"]
    assert (pair["a"], pair["b"]) == PAIR
    assert 0 <= pair["double_fault"] <= 1
    assert "Diversity of the members" in ensembles.ended[rule]["evaluate"].out


@pytest.mark.parametrize("rule", RULES)
def test_a_registered_ensemble_answers_as_it_was_evaluated(ensembles, registry, rule):
    """`models:/NAME/1`, loaded with MLflow alone, gives base64 images the scores of `evaluate`, to 1e-6."""
    model = mlflow.pyfunc.load_model(f"models:/{DATASET}-{rule}/1")
    answers = model.predict(pd.DataFrame({"image": ensembles.test_images(rule)}))
    predictions = ensembles.predictions(rule)
    y_score = np.array([[each[name] for name in predictions.classes] for each in answers.probabilities])
    np.testing.assert_allclose(y_score, predictions.y_score, atol=1e-6, rtol=0)
    assert list(answers.label) == [predictions.classes[label] for label in predictions.y_pred]


@pytest.mark.parametrize("rule", RULES)
def test_a_registered_ensemble_is_linked_to_its_run(ensembles, rule):
    """The version in the registry names the run that joined the members, which is FINISHED."""
    (version,) = ensembles.project.client.search_model_versions(f"name='{DATASET}-{rule}'")
    run = ensembles.project.client.get_run(version.run_id)
    assert (run.data.tags["medvision.step"], run.info.status) == ("ensemble", "FINISHED")
    assert run.data.params["ensemble.rule"] == rule


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--models", f"soft {PAIR[0]}"), "is an ensemble itself"),
        (("--models", f"{PAIR[0]} resnet18"), "medvision train --model resnet18"),
        (("--models", PAIR[0]), "at least two models"),
        (("--models", f"{PAIR[0]} {PAIR[0]}"), "different models"),
        (("--models", " ".join(PAIR), "--rule", "staking"), "'stacking'"),
        (("--models", " ".join(PAIR), "--name", PAIR[0]), PAIR[0]),
    ],
    ids=[
        "of an ensemble",
        "of a model that is not trained",
        "of one",
        "of one twice",
        "by no rule",
        "in another's place",
    ],
)
def test_what_is_no_ensemble_is_refused(ensembles, options, said):
    """What can't be joined ends the command with 2, says why, and leaves every package as it was."""
    before = {path: path.read_bytes() for path in ensembles.project.folder.glob("checkpoints/*/package/package.json")}
    outcome = ensembles.project.call("ensemble", *options, *ON_DATASET, "--set", PAIR_SETTINGS)
    assert outcome.code == 2, outcome
    assert said in outcome.err
    after = {path: path.read_bytes() for path in ensembles.project.folder.glob("checkpoints/*/package/package.json")}
    assert after == before
