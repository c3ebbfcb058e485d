"""`medvision register`: what is stored of a model, and what of it answers."""

import base64
import json
import re
import shutil

import mlflow
import pandas as pd
import pytest
from medvision_project import DATASET, MODEL, ON_DATASET, PAIR, PAIR_SETTINGS
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from medvision.models.package import package_digest
from medvision.registry.packages import look_up

OWN_TEXT = "First of its kind.\n\nFor the *night shift*."
OTHER = f"{DATASET}-timm-test_resnet-r160_in1k"
REPORTS = {
    "reports/evaluation_report.html",
    "reports/evaluation_metrics.json",
    "reports/evaluation_details.json",
    "reports/medical_validation.json",
    "reports/model_card.md",
    "reports/model_card.html",
}


class Desk:
    """Commands on the pair's models, with results of their own."""

    def __init__(self, project, results):
        self.project, self.results = project, results
        self.uri = f"sqlite:///{project.folder / 'mlflow.db'}"

    def call(self, step, *options, settings=""):
        """Run a step."""
        return self.project.call(
            step, *options, "--set", f"{PAIR_SETTINGS} paths.results={self.results} {settings}".strip()
        )

    def validate(self, name, policy):
        """Evaluate a model, unless it is evaluated, and validate it."""
        if not (self.results / name.replace("/", "-") / "evaluation_metrics.json").is_file():
            evaluated = self.call("evaluate", "--model", name, *ON_DATASET)
            assert evaluated.code == 0, evaluated.err
        validated = self.call("validate", "--model", name, "--policy", policy, *ON_DATASET)
        assert validated.code == 0, validated.err

    def register(self, name, *options):
        """Register a model."""
        return self.call("register", "--model", name, "--dataset-path", DATASET, *options)

    def version(self, name, number="1"):
        """Return a version."""
        return self.project.client.get_model_version(name, number)

    def files(self, version):
        """Return the files of a version's logged model, by their place."""
        model = self.project.client.get_logged_model(version.source.removeprefix("models:/"))
        root = self.project.folder / "mlruns" / DATASET / "models" / model.model_id / "artifacts"
        return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}

    def actions(self, name):
        """Return the actions in a model's ledger."""
        client = MlflowClient(self.uri, f"medvision+{self.uri}")
        (model,) = client.search_registered_models(f"name = '{name}' AND tag.`medvision.ledger` = 'all'")
        return [json.loads(entry)["action"] for _, entry in sorted(model.tags.items())]


@pytest.fixture(scope="module")
def desk(pair, tmp_path_factory):
    return Desk(pair, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def registered(desk):
    """Validate the first model under one policy, and register it; return how that ended."""
    desk.validate(PAIR[0], "easy")
    outcome = desk.register(
        PAIR[0], "--version", "1.2.0", "--description", OWN_TEXT, "--tags", "production=ready,site=A", "--tags", "by=us"
    )
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def stored(desk):
    """Register the second model without a verdict; return how that ended."""
    outcome = desk.register(PAIR[1], "--unvalidated")
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture
def inside(pair, monkeypatch):
    """Work in the project's folder, as `mlflow models serve` does."""
    monkeypatch.chdir(pair.folder)
    mlflow.set_tracking_uri(f"sqlite:///{pair.folder / 'mlflow.db'}")
    yield
    # Which also unsets the variable that every later command would take it from.
    mlflow.set_tracking_uri(None)


@pytest.fixture
def images(pair):
    """Return an image in the column that a model takes."""
    path = next((pair.folder / DATASET).rglob("*.png"))
    return pd.DataFrame({"image": [base64.b64encode(path.read_bytes()).decode()]})


def test_a_version_says_what_it_is(desk, registered):
    """The version has its semantic version, the user's tags, and the gate's."""
    tags = desk.version(MODEL).tags
    assert {"version": "1.2.0", "production": "ready", "site": "A", "by": "us"}.items() <= tags.items()
    assert tags["medvision.verdict"] == "passed"
    package = desk.project.folder / "checkpoints" / "simple_cnn_outputs" / "package"
    assert tags["medvision.package_digest"] == package_digest(package)


def test_the_description_says_verdict_and_figures(desk, registered):
    """The user's words, the verdict with policy and grade, and each key figure with its interval."""
    described = desk.version(MODEL).description
    assert described.startswith(OWN_TEXT)
    assert "passed medical validation** under policy easy" in described and "grade:" in described
    accuracy = json.loads((desk.results / "simple_cnn" / "evaluation_metrics.json").read_text())["overall"]["accuracy"]
    assert f"| accuracy | {accuracy['value']:.3f} | {accuracy['low']:.3f} to {accuracy['high']:.3f} |" in described
    assert described.count("| sensitivity, ") == described.count("| specificity, ") == 3


def test_the_description_links_to_the_reports(desk, registered):
    """The links lead to report and model card among a run's artifacts, and to the files of the model."""
    described = desk.version(MODEL).description
    for title in ("Evaluation report", "Model card"):
        experiment, run_id, path = re.search(
            rf"\[{title}\]\(#/experiments/(\d+)/runs/(\w{{32}})/artifacts/(\S+)\)", described
        ).groups()
        run = desk.project.client.get_run(run_id)
        assert run.info.experiment_id == experiment
        assert path in desk.project.artifacts(run, "reports")
    model_id = desk.version(MODEL).source.removeprefix("models:/")
    assert f"[All files](#/experiments/{experiment}/models/{model_id}/artifacts)" in described


def test_verdict_and_reports_are_files_of_the_model(desk, registered):
    """The model's files hold the signed verdict, to the byte, and the reports, but neither predictions nor pictures."""
    files = desk.files(desk.version(MODEL))
    signed = (desk.results / "simple_cnn" / "medical_validation.dsse.json").read_bytes()
    assert files["verdicts/easy.dsse.json"].read_bytes() == signed
    assert {name for name in files if name.startswith("reports/")} >= REPORTS
    assert not [name for name in files if name.endswith((".parquet", ".png", ".pkl"))]


def test_registering_again_changes_nothing(desk, registered):
    """The same package under the same verdict is not registered a second time."""
    before = desk.project.versions()
    outcome = desk.register(PAIR[0])
    assert outcome.code == 0, outcome.err
    assert f"{MODEL} 1.2.0 already, version 1" in outcome.out and "nothing to do" in outcome.out
    assert desk.project.versions() == before


def test_a_new_verdict_is_attached(desk, registered):
    """A verdict under another policy goes to the version that there is, beside the former one, and into the ledger."""
    n_versions, n_acts = len(desk.project.versions()), len(desk.actions(MODEL))
    desk.validate(PAIR[0], "plain")
    outcome = desk.register(PAIR[0], "--tags", "site=B")
    assert outcome.code == 0, outcome.err
    assert "The verdict under policy plain" in outcome.out and "was attached to it" in outcome.out
    version = desk.version(MODEL)
    assert len(desk.project.versions()) == n_versions
    assert {"verdicts/easy.dsse.json", "verdicts/plain.dsse.json"} <= set(desk.files(version))
    assert desk.actions(MODEL)[n_acts:] == ["attest"]
    assert version.tags["site"] == "B" and version.description.startswith(OWN_TEXT)
    assert "under policy plain" in version.description and "under policy easy" not in version.description


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("production", "expects KEY=VALUE, for example production=ready; found 'production'"),
        ("a=1,=2", "found '=2'"),
        ("medvision.verdict=passed", "medvision.verdict: it is set by the registry itself"),
        ("version=2.0.0", "version: it is set by the registry itself"),
        ("Test_Accuracy=0.99", "Test_Accuracy: it is set by the registry itself"),
    ],
)
def test_tags_that_cannot_be_set(desk, registered, tags, said):
    """What is no tag, or one that only the gate sets, ends the command with 2 before anything is done."""
    n_runs = len(desk.project.runs("register"))
    outcome = desk.register(PAIR[0], "--tags", tags)
    assert outcome.code == 2 and said in outcome.err
    assert len(desk.project.runs("register")) == n_runs


def test_without_a_verdict_nothing_is_registered(desk, stored):
    """A model that nobody has validated is refused with 3, and the message names the command."""
    outcome = desk.register(PAIR[1], "--version", "9.9.9")
    assert outcome.code == 3
    assert "Run: medvision validate" in outcome.err


def test_an_unvalidated_version_says_so(desk, stored):
    """It is stored only if that was asked for, and command, tags and description say that it is not validated."""
    version = desk.version(OTHER)
    assert version.tags["medvision.verdict"] == "none"
    assert "NOT VALIDATED" in version.description and "NOT VALIDATED" in stored.out


@pytest.mark.parametrize(
    "command",
    [
        ("predict", f"{OTHER}/1", DATASET),
        ("serve-mlflow", "--model", f"{OTHER}/1"),
        ("serve", f"{OTHER}/1", "--no-auth"),
    ],
    ids=lambda command: command[0],
)
def test_an_unvalidated_version_is_refused_early(desk, stored, command):
    """`predict` and both servers end with 3 and one sentence, before a server is started or an image read."""
    outcome = desk.call(*command)
    assert outcome.code == 3
    assert f"medvision: {OTHER} refuses to answer: expected a passed verdict on package" in outcome.err
    assert outcome.err.strip().count("\n") == 0
    assert outcome.out == ""


def test_an_unvalidated_model_answers_nobody(desk, stored, inside, images):
    """Loaded by MLflow it answers with the refusal alone: 403, no path of a file, and none of the input."""
    model = mlflow.pyfunc.load_model(f"models:/{OTHER}/1")
    with pytest.raises(MlflowException) as refused:
        model.predict(images)
    assert refused.value.get_http_status_code() == 403
    assert "refuses to answer" in refused.value.message
    assert str(desk.project.folder) not in refused.value.message and images.image[0] not in str(refused.value)


def test_development_may_have_answers(desk, stored, inside, images, monkeypatch, caplog):
    """With MEDVISION_UNVALIDATED=allow it answers, and the log says so at the load and at each answer."""
    monkeypatch.setenv("MEDVISION_UNVALIDATED", "allow")
    model = mlflow.pyfunc.load_model(f"models:/{OTHER}/1")
    assert "answers WITHOUT a valid verdict" in caplog.text
    for n_answers in (1, 2):
        assert len(model.predict(images)) == 1
        assert caplog.text.count("An answer of") == n_answers


@pytest.mark.parametrize("damage", ["weights", "description"])
def test_a_damaged_package_answers_nobody(desk, registered, inside, images, tmp_path, damage):
    """Weights with one flipped bit, or another description, are refused, whatever verdict lies beside them."""
    model = tmp_path / "model"
    source = next(path for place, path in desk.files(desk.version(MODEL)).items() if place == "MLmodel").parent
    shutil.copytree(source, model)
    path = model / "artifacts" / "package" / ("weights.safetensors" if damage == "weights" else "package.json")
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(MlflowException) as refused:
        mlflow.pyfunc.load_model(str(model)).predict(images)
    assert "The model package can't be used" in refused.value.message
    assert str(tmp_path) not in refused.value.message


def test_another_model_under_the_same_verdict_answers_nobody(desk, registered, stored, inside, images, tmp_path):
    """A whole package, exchanged for another whole one, is not the one that the verdict is about."""
    model = tmp_path / "model"
    shutil.copytree(desk.files(desk.version(MODEL))["MLmodel"].parent, model)
    shutil.rmtree(model / "artifacts" / "package")
    shutil.copytree(
        desk.files(desk.version(OTHER))["artifacts/package/package.json"].parent, model / "artifacts" / "package"
    )
    with pytest.raises(MlflowException, match="refuses to answer: expected a passed verdict on package"):
        mlflow.pyfunc.load_model(str(model)).predict(images)


def test_a_version_answers_once_it_is_validated(desk, stored, inside, images):
    """A verdict that comes later is attached to the version that was stored, which answers from then on."""
    desk.validate(PAIR[1], "easy")
    attached = desk.register(PAIR[1])
    assert attached.code == 0, attached.err
    assert "was attached to it" in attached.out
    version = desk.version(OTHER)
    assert version.tags["medvision.verdict"] == "passed"
    assert "NOT VALIDATED" not in version.description
    assert len(mlflow.pyfunc.load_model(f"models:/{OTHER}/1").predict(images)) == 1


def test_code_that_was_exchanged_is_not_served(desk, registered):
    """`serve` ends with 3 before MLflow could run a file that is not the one that was registered."""
    code = desk.files(desk.version(MODEL))["pyfunc_model.py"]
    own = code.read_text()
    code.write_text(f"print('mine')\n{own}")
    try:
        outcome = desk.call("serve-mlflow", "--model", f"{MODEL}/1")
    finally:
        code.write_text(own)
    assert outcome.code == 3 and outcome.out == ""
    assert f"{MODEL} is not loaded: expected the loader of medvision, and no other code" in outcome.err


def test_a_failed_verdict_reaches_the_version(desk, stored, inside, images):
    """A version that fails when it is validated again has the failed verdict, and answers nobody from then on."""
    desk.validate(PAIR[1], "easy")
    assert desk.register(PAIR[1]).code == 0
    failed = desk.call("validate", "--model", PAIR[1], "--policy", "strict", *ON_DATASET)
    assert failed.code == 3, failed.err
    attached = desk.register(PAIR[1], "--unvalidated")
    assert attached.code == 0, attached.err
    assert "The verdict under policy strict" in attached.out and "NOT VALIDATED" in attached.out
    with pytest.raises(MlflowException, match="found strict: failed under policy strict"):
        mlflow.pyfunc.load_model(f"models:/{OTHER}/1").predict(images)


def test_a_checkpoint_is_registered_like_any_model(desk, inside, images):
    """Weights that `evaluate --source` has packed are registered, as a logged model of just this package."""
    source = f"checkpoints/{PAIR[1].replace('/', '-')}_outputs/best_model.pth"
    name = f"{PAIR[1].replace('/', '-')}_outputs-best_model"
    evaluated = desk.call("evaluate", "--source", source, *ON_DATASET)
    assert evaluated.code == 0, evaluated.err
    desk.validate(name, "easy")
    outcome = desk.register(name)
    assert outcome.code == 0, outcome.err
    (uri,) = re.findall(r"models:/[\w-]+/1", outcome.out)
    version = desk.version(uri.split("/")[1])
    assert desk.project.client.get_run(version.run_id).data.tags["medvision.step"] == "register"
    packed = desk.project.folder / "checkpoints" / f"{name}_outputs" / "package"
    assert package_digest(desk.files(version)["artifacts/package/package.json"].parent) == package_digest(packed)
    assert len(mlflow.pyfunc.load_model(uri).predict(images)) == 1


def test_a_run_is_registered_under_its_verdict_here(desk, registered):
    """The run of a model of this project is that model: its evaluation and verdict here are the ones that count."""
    (run,) = [run for run in desk.project.runs("train") if run.data.params.get("training.model") == PAIR[0]]
    before = desk.project.versions().keys()
    outcome = desk.call("register", "--run-id", run.info.run_id, settings=f"paths.checkpoints={desk.results}/ck")
    assert outcome.code == 0, outcome.err
    assert f"{MODEL} 1.2.0 already, version 1" in outcome.out
    assert desk.project.versions().keys() == before


def test_a_run_is_registered_under_its_verdict_in_mlflow(desk, registered, tmp_path):
    """Where nothing of it lies here, package, evaluation and verdict of a run are fetched from MLflow."""
    (run,) = [run for run in desk.project.runs("train") if run.data.params.get("training.model") == PAIR[0]]
    elsewhere = f"{PAIR_SETTINGS} paths.checkpoints={tmp_path}/checkpoints paths.results={tmp_path}/results"
    outcome = desk.project.call("register", "--run-id", run.info.run_id, "--version", "3.0.0", "--set", elsewhere)
    assert outcome.code == 0, outcome.err
    found = look_up(desk.uri, f"models:/{MODEL}@v3-0-0", again="register")
    assert found.version == "3.0.0"
    assert found.source == desk.version(MODEL).source


@pytest.mark.parametrize("run_id", ["0" * 32, "train", "../../etc"])
def test_a_run_that_is_none_is_named(desk, registered, run_id):
    """What is no run, or none that trained a model, ends the command with 2."""
    outcome = desk.call("register", "--run-id", run_id, "--dataset-path", DATASET)
    assert outcome.code == 2
    assert run_id in outcome.err and "Traceback" not in outcome.err


def test_images_that_may_not_be_shared_stay_here(desk, registered, tmp_path):
    """With tracking.share_images=false the report among the model's files is the one without images of patients."""
    private = Desk(desk.project, tmp_path)
    options = ("--model", PAIR[0], *ON_DATASET)
    closed = "tracking.share_images=false"
    assert private.call("evaluate", *options, settings=closed).code == 0
    assert private.call("validate", *options, "--policy", "easy", settings=closed).code == 0
    outcome = private.call(
        "register", "--model", PAIR[0], "--dataset-path", DATASET, "--version", "4.0.0", settings=closed
    )
    assert outcome.code == 0, outcome.err
    found = look_up(desk.uri, f"models:/{MODEL}@v4-0-0", again="register")
    report = desk.files(desk.version(MODEL, found.number))["reports/evaluation_report.html"].read_bytes()
    folder = tmp_path / "simple_cnn"
    assert report == (folder / "shareable" / "evaluation_report.html").read_bytes()
    assert report != (folder / "evaluation_report.html").read_bytes()
