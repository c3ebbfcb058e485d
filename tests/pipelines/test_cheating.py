"""Each way of cheating fails, with an exit code and the name of what was touched."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from medvision_project import DATASET, ON_DATASET, ON_MODEL, RECIPE
from PIL import Image

from medvision.evaluation.metrics import evaluate_predictions
from medvision.evaluation.predictions import load_predictions, save_predictions
from medvision.files import sha256_file
from medvision.models.package import load_package, package_digest, save_package
from medvision.records import Evaluation, load_record, save_record
from medvision.validation.attestation import open_envelope, sign
from medvision.validation.keys import load_trusted_keys

MODEL = ("--model", "simple_cnn")


class Copy:
    """A copy of all that the pipeline left, to be touched; commands work on it, and never on the original."""

    def __init__(self, project, folder):
        self.project, self.folder = project, folder
        for name in ("results", "checkpoints", ".medvision"):
            shutil.copytree(project.folder / name, folder / name)
        self.results = folder / "results" / "simple_cnn"
        self.package = folder / "checkpoints" / "simple_cnn_outputs" / "package"
        self.predictions = self.results / "predictions.parquet"
        self.evaluation = self.results / "evaluation_metrics.json"
        self.envelope = self.results / "medical_validation.dsse.json"
        self.ledger = folder / ".medvision" / "datasets" / DATASET / "test_ledger.jsonl"
        self.paths = (
            f"paths.results={folder}/results paths.checkpoints={folder}/checkpoints paths.state={folder}/.medvision"
        )

    def validate(self, *options, policy="plain", dataset=ON_DATASET):
        """Run ``medvision validate``."""
        return self.project.call("validate", *MODEL, *dataset, "--policy", policy, *options, "--set", self.paths)

    def verify(self, *options, dataset=ON_DATASET):
        """Run ``medvision verify``."""
        return self.project.call("verify", *MODEL, *dataset, *options, "--set", self.paths)

    def register(self, *options):
        """Run ``medvision register``, which must not change the registry."""
        before = self.project.versions()
        outcome = self.project.call("register", *ON_MODEL, *options, "--set", self.paths)
        assert self.project.versions() == before
        return outcome

    def reasons(self):
        """Return the rules that the verdict says are not met, with their messages."""
        verdict = json.loads((self.results / "medical_validation.json").read_text())
        assert verdict["state"] == "failed"
        return {rule["rule"]: rule["message"] for rule in verdict["outcomes"] if rule["state"] != "passed"}

    def save_consistently(self, predictions):
        """Save predictions, and an evaluation that was computed from them, as an evaluation would."""
        save_predictions(self.predictions, predictions)
        stated = load_record(Evaluation, self.evaluation)
        names = ("model", "dataset", "package_digest", "split_fingerprint", "plan")
        kept = {name: getattr(stated, name) for name in names}
        table = load_predictions(self.predictions)
        sha256 = sha256_file(self.predictions)
        save_record(evaluate_predictions(table, **kept, predictions_sha256=sha256), self.evaluation)

    def train_another(self):
        """Put another model into the package, whole and with hashes of its own; return its digest."""
        info, networks = load_package(self.package)
        for parameter in networks[0].parameters():
            parameter.data *= -1
        save_package(self.package, info, networks)
        return package_digest(self.package)


@pytest.fixture
def copy(project, tmp_path):
    """Return a copy of what the pipeline left."""
    return Copy(project, tmp_path)


def flip(path, position=-100):
    """Change one bit of one byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_what_was_not_touched_holds(copy):
    """`verify` passes all that the pipeline left and says so check by check; so does `validate`, again."""
    verified = copy.verify()
    assert verified.code == 0, verified.err
    lines = [line for line in verified.out.splitlines() if line.startswith("ok ")]
    assert len(lines) == 8 and "TOUCHED" not in verified.out
    validated = copy.validate()
    assert validated.code == 0, validated.err
    assert copy.verify().code == 0


def test_edited_metrics(copy):
    """A figure that was edited fails every command with 3, by its name."""
    evaluation = json.loads(copy.evaluation.read_text())
    evaluation["overall"]["accuracy"]["value"] = 0.999
    copy.evaluation.write_text(json.dumps(evaluation))
    assert copy.register().code == 3
    verified = copy.verify()
    assert verified.code == 3 and "overall.accuracy.value = 0.999" in verified.err
    assert copy.validate().code == 3
    assert "overall.accuracy.value = 0.999" in copy.reasons()["evidence.metrics"]
    assert copy.register().code == 3


def test_edited_scores(copy):
    """Scores that were edited, with hash and figures to match, fail with 3: the images are scored again."""
    table = load_predictions(copy.predictions)
    better = np.full_like(table.y_score, 0.01)
    better[np.arange(len(better)), table.y_true] = 0.98
    copy.save_consistently(dataclasses.replace(table, y_score=better))
    assert copy.register().code == 3
    verified = copy.verify()
    assert verified.code == 3 and "predictions: " in verified.err
    assert copy.validate().code == 3
    assert "are not those of the model package" in copy.reasons()["evidence.predictions"]


def test_one_edited_score(copy):
    """Of the small test set here every image is scored again: one row is found, by its number."""
    table = load_predictions(copy.predictions)
    y_score = table.y_score.copy()
    y_score[5] = np.roll(y_score[5], 1)
    copy.save_consistently(dataclasses.replace(table, y_score=y_score))
    assert copy.validate().code == 3
    assert copy.reasons()["evidence.predictions"].endswith("the first in row 5")


@pytest.mark.parametrize("edit", ["labels", "patients", "a row less"])
def test_edited_truth(copy, edit):
    """Labels made to fit the calls, forgotten patients and a hard case left out fail with 3."""
    table = load_predictions(copy.predictions)
    wrong = np.roll(table.y_true, 1)
    changed = {
        "labels": {"y_true": wrong},
        "patients": {"patient_keys": (None,) * len(wrong)},
        "a row less": {
            "image_ids": table.image_ids[1:],
            "patient_keys": table.patient_keys[1:],
            "y_true": table.y_true[1:],
            "y_score": table.y_score[1:],
        },
    }[edit]
    copy.save_consistently(dataclasses.replace(table, **changed))
    assert copy.validate().code == 3
    assert "predictions.parquet" in copy.reasons()["evidence.predictions"]


@pytest.mark.parametrize("where", ["metrics", "predictions"])
def test_nan(copy, where):
    """NaN fails with 3, in the figures and in the predictions, and leaves no verdict that could be registered."""
    if where == "metrics":
        evaluation = json.loads(copy.evaluation.read_text())
        evaluation["overall"]["accuracy"]["value"] = float("nan")
        copy.evaluation.write_text(json.dumps(evaluation))
    else:
        table = load_predictions(copy.predictions)
        y_score = table.y_score.copy()
        y_score[3] = np.nan
        save_predictions(copy.predictions, dataclasses.replace(table, y_score=y_score))
    outcome = copy.validate()
    assert outcome.code == 3
    assert "nan" in (outcome.out + outcome.err).lower()
    assert copy.register().code == 3


@pytest.mark.parametrize("name", ["predictions.parquet", "evaluation_metrics.json"])
def test_missing_evidence(copy, name):
    """Without predictions or figures nothing is judged, and an older verdict does not stand in."""
    (copy.results / name).unlink()
    outcome = copy.validate()
    assert outcome.code == 5 and name in outcome.err
    assert copy.register().code in {3, 5}


def test_another_model(copy):
    """A verdict does not hold for another model: 3 from all, which name the package."""
    digest = copy.train_another()[:12]
    registered = copy.register()
    assert registered.code == 3 and f"the package at hand is {digest}" in registered.err
    verified = copy.verify()
    assert verified.code == 3 and "model package: " in verified.err
    assert copy.validate().code == 3
    assert digest in copy.reasons()["evidence.package"]


def test_another_model_under_the_same_predictions(copy):
    """Another model whose predictions are said to be those of the first is found: its images are scored again."""
    digest = copy.train_another()
    table = load_predictions(copy.predictions)
    save_record(dataclasses.replace(load_record(Evaluation, copy.evaluation), package_digest=digest), copy.evaluation)
    copy.save_consistently(dataclasses.replace(table, package_digest=digest))
    assert copy.validate().code == 3
    assert set(copy.reasons()) == {"evidence.predictions"}


def test_another_test_set(copy, project):
    """A test image that was exchanged fails `validate` with 3, which names the test set, and `evaluate` with 5."""
    root = copy.folder / DATASET
    shutil.copytree(project.folder / DATASET, root)
    dataset = ("--dataset-path", str(root), *ON_DATASET[2:])
    # The manifest knows the path of the folder, and nothing else has changed yet.
    assert copy.verify(dataset=dataset).code == 0
    for path in sorted(root.rglob("*.png")):
        Image.eval(Image.open(path), lambda value: 255 - value).save(path)
    verified = copy.verify(dataset=dataset)
    assert verified.code == 3 and "test set: " in verified.err
    assert copy.validate(dataset=dataset).code == 3
    assert "locked" in copy.reasons()["evidence.test_set"]
    evaluated = project.call("evaluate", *MODEL, *dataset, "--set", copy.paths)
    assert evaluated.code == 5


def test_an_exchanged_test_image(copy, project):
    """Images with other pixels, but of the size and the time of the old ones, are read again by `verify`: 3."""
    root = copy.folder / DATASET
    shutil.copytree(project.folder / DATASET, root)
    dataset = ("--dataset-path", str(root), *ON_DATASET[2:])
    assert copy.verify(dataset=dataset).code == 0
    for path in root.rglob("*.png"):
        before = path.stat()
        Image.new("L", Image.open(path).size).save(path)
        path.write_bytes(path.read_bytes().ljust(before.st_size, b"\0"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
    verified = copy.verify(dataset=dataset)
    assert verified.code == 3
    assert "test set: 24 of 24 test images have other pixels" in verified.err


def test_another_split_is_not_tested_on(copy, project):
    """A model that was trained on another split has another test set: `evaluate` ends with 5, and says how to go on."""
    seed = f"{copy.paths} dataset.seed=7"
    shutil.rmtree(copy.folder / "checkpoints")
    assert project.call("normalize", *ON_DATASET, "--set", seed).code == 0
    trained = project.call("train", *MODEL, *ON_DATASET, *RECIPE, "--epochs", "1", "--set", seed)
    assert trained.code == 0, trained.err
    evaluated = project.call("evaluate", *MODEL, *ON_DATASET, "--set", seed)
    assert evaluated.code == 5
    assert "locked" in evaluated.err and "dataset.name=NAME" in evaluated.err


def test_an_old_verdict(copy):
    """A verdict from before the evaluation, or from before the policy's rules, registers nothing: 3."""
    table = load_predictions(copy.predictions)
    envelope = copy.envelope.read_bytes()
    copy.save_consistently(dataclasses.replace(table, y_score=table.y_score[:, [1, 2, 0]]))
    assert "has changed since it was judged" in copy.register().err
    copy.validate()
    copy.envelope.write_bytes(envelope)
    assert copy.register().code == 3


def test_a_policy_that_was_changed(copy, project):
    """A rule that was changed since the verdict is named by its policy: 3, from `register` and `verify`."""
    changed = copy.folder / "policies.yaml"
    text = (project.folder / "config" / "validation.yaml").read_text()
    changed.write_text(text.replace("accuracy: 0.05", "accuracy: 0.06"))
    registered = copy.register("--policies", str(changed))
    assert registered.code == 3 and "policy lenient have changed" in registered.err
    verified = copy.verify("--policies", str(changed))
    assert verified.code == 3 and "policy: policy lenient" in verified.err


def test_a_policy_of_ones_own(copy):
    """A verdict under rules from another file does not hold under those of the project."""
    own = copy.folder / "policies.yaml"
    own.write_text("policies: {plain: {value: {accuracy: 0.01, sensitivity: 0.01}}}")
    assert copy.validate("--policies", str(own)).code == 0
    assert copy.register().code == 3


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("critical: [phantom_gliomma]", "Did you mean 'phantom_glioma'"),
        ("subgroup_floor: {columns: [patient_key], figure: accuracy, minimum: 0.8}", "column 'patient_key'"),
    ],
)
def test_a_policy_that_is_not_understood_costs_nothing(copy, rules, said):
    """A policy that can't be applied ends `validate` with 2: the old verdict stays, and no look is counted."""
    policies = copy.folder / "policies.yaml"
    policies.write_text(f"policies: {{plain: {{value: {{accuracy: 0.05, sensitivity: 0.01}}, {rules}}}}}")
    envelope, ledger = copy.envelope.read_bytes(), copy.ledger.read_bytes()
    outcome = copy.validate("--policies", str(policies))
    assert outcome.code == 2 and said in outcome.err
    assert (copy.envelope.read_bytes(), copy.ledger.read_bytes()) == (envelope, ledger)


def test_subgroups_are_not_argued_away(copy):
    """A floor by a column that the dataset lacks fails the model, though the settings name no subgroups."""
    policies = copy.folder / "policies.yaml"
    floor = "subgroup_floor: {columns: [site, width], figure: accuracy, minimum: 0.01}"
    policies.write_text(f"policies: {{plain: {{value: {{accuracy: 0.05, sensitivity: 0.01}}, {floor}}}}}")
    assert copy.validate("--policies", str(policies)).code == 3
    assert set(copy.reasons()) == {"subgroup_floor.accuracy.site"}


def test_a_plan_of_ones_own(copy):
    """Other replicates are a setting: the verdict is made by the plan of all verdicts, says so, and holds."""
    before = json.loads((copy.results / "medical_validation.json").read_text())["evaluation_fingerprint"]
    own = f"{copy.paths} evaluation.replicates=100 evaluation.seed=7"
    evaluated = copy.project.call("evaluate", *MODEL, *ON_DATASET, "--set", own)
    assert evaluated.code == 0, evaluated.err
    validated = copy.validate()
    assert validated.code == 0, validated.err
    assert "The evaluation has 100 replicates with seed 7" in validated.out
    verdict = json.loads((copy.results / "medical_validation.json").read_text())
    assert verdict["evaluation_fingerprint"] == before
    verified = copy.verify()
    assert verified.code == 0, verified.err


def test_a_plan_without_end(copy):
    """A billion replicates that the figures claim to have are not computed, and an edited value is still named."""
    evaluation = json.loads(copy.evaluation.read_text())
    evaluation["plan"]["replicates"] = 10**9
    copy.evaluation.write_text(json.dumps(evaluation))
    assert copy.validate().code == 0
    evaluation["overall"]["accuracy"]["value"] = 0.999
    copy.evaluation.write_text(json.dumps(evaluation))
    assert copy.validate().code == 3
    assert "overall.accuracy.value = 0.999" in copy.reasons()["evidence.metrics"]


def test_a_model_that_was_trained_elsewhere(copy):
    """A model of which this project has no run is known by its package, and is not registered a second time."""
    run_key = load_package(copy.package)[0].run_key
    shutil.rmtree(copy.folder / ".medvision" / "outbox" / run_key)
    outcome = copy.register()
    assert outcome.code == 0, outcome.err
    assert "1.0.0 already, version 1" in outcome.out


def test_a_verdict_that_was_edited(copy):
    """Failed made passed in the readable verdict, or in the signed one, registers nothing; `verify` names both."""
    assert copy.validate(policy="strict").code == 3
    readable = copy.results / "medical_validation.json"
    readable.write_text(readable.read_text().replace('"state": "failed"', '"state": "passed"'))
    assert "did not pass" in copy.register().err
    verified = copy.verify()
    assert verified.code == 3 and "verdict: " in verified.err
    flip(copy.envelope)
    assert "signed verdict" in copy.register().err
    assert copy.verify().code == 3


def test_a_verdict_that_a_stranger_signed(copy):
    """A verdict that says passed, whole and signed, but by a key that is not trusted, registers nothing: 3."""
    assert copy.validate(policy="strict").code == 3
    verdict = open_envelope(copy.envelope.read_text(), load_trusted_keys(copy.folder / ".medvision"))
    passed = dataclasses.replace(verdict, state="passed", outcomes=())
    copy.envelope.write_text(sign(passed, Ed25519PrivateKey.generate()))
    outcome = copy.register()
    assert outcome.code == 3 and "not trusted" in outcome.err


@pytest.mark.parametrize(
    ("touched", "name"),
    [
        ("checkpoints/simple_cnn_outputs/package/weights.safetensors", "weights.safetensors"),
        ("checkpoints/simple_cnn_outputs/package/package.json", "package.json"),
        ("results/simple_cnn/predictions.parquet", "predictions: "),
        ("results/simple_cnn/medical_validation.json", "verdict: "),
        ("results/simple_cnn/medical_validation.dsse.json", "signed verdict"),
        (f".medvision/datasets/{DATASET}/test_ledger.jsonl", "ledger: Entry 2 "),
    ],
)
def test_one_byte(copy, touched, name):
    """`verify` ends with 3 and names what was touched if one byte differs."""
    flip(copy.folder / touched)
    outcome = copy.verify()
    assert outcome.code == 3
    assert name in outcome.err
    assert "Traceback" not in outcome.err


def test_a_ledger_that_was_shortened(copy):
    """Looks at the test set that were cut off fail `validate` and `verify` with 3, and `evaluate` with 5."""
    copy.ledger.write_text(copy.ledger.read_text().splitlines(keepends=True)[0])
    assert copy.verify().code == 3
    assert copy.validate().code == 3
    assert "Entry 2" in copy.reasons()["evidence.ledger"]
    evaluated = copy.project.call("evaluate", *MODEL, *ON_DATASET, "--set", copy.paths)
    assert evaluated.code == 5


def test_a_ledger_that_was_started_anew(copy):
    """Where the whole ledger was removed the verdict still knows it."""
    for path in copy.ledger.parent.glob("test_ledger*"):
        path.unlink()
    assert copy.register().code == 3
    assert "ledger: entry 2" in copy.verify().err


def test_every_look_is_counted(copy):
    """Each validation adds to the looks that the next verdict shows."""
    looks = []
    for _ in range(2):
        copy.validate()
        looks.append(json.loads((copy.results / "medical_validation.json").read_text())["looks"])
    assert looks == [3, 4]


def test_a_key_that_others_can_read(copy):
    """A signing key that others can read signs nothing: 2, with the command that mends it."""
    (copy.folder / ".medvision" / "keys" / "signing.key").chmod(0o644)
    outcome = copy.validate()
    assert outcome.code == 2 and "chmod 600" in outcome.err


def test_keys(copy):
    """`keys init` keeps the key that is there; `keys show` prints the public half and never the private one."""
    private = copy.folder / ".medvision" / "keys" / "signing.key"
    before = private.read_bytes()
    for action in ("init", "show"):
        outcome = _call_keys(copy, action)
        assert outcome.code == 0, outcome.err
        assert "BEGIN PUBLIC KEY" in outcome.out
        assert "PRIVATE" not in outcome.out + outcome.err
    assert private.read_bytes() == before
    assert _call_keys(copy, "burn").code == 2


def _call_keys(copy, action):
    return copy.project.call("keys", action, "--set", copy.paths)
