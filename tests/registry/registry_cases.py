"""A project with a gated registry, and versions of a tiny model for it: good ones, and each kind of bad one."""

import base64
import contextlib
import importlib.util
import json
import os
import py_compile
import shutil
import sqlite3
import sys
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.models.package import describe, package_digest, save_package
from medvision.records import RuleOutcome, Verdict
from medvision.registry.gated_store import GatedStore
from medvision.registry.loader import CODE, requirements
from medvision.registry.promotion import approve, promote
from medvision.tracking.mlflow_sink import save_model
from medvision.validation.attestation import sign
from medvision.validation.keys import load_signing_key, make_key
from medvision.validation.policy import load_policy

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NAME = "tiny-simple_cnn"
TEST_SET = "d" * 64
POLICIES = ("staging", "production")
ARCHITECTURE = Architecture("simple_cnn", "own", "linear", 2, 1, 16)
SAID = {"meaning": "Fit for use.", "reason": "Figures and errors were reviewed."}


class Registry:
    """A folder with a project's settings, keys and database, in which the gate works."""

    def __init__(self, folder, database=None):
        self.folder, self.database = folder, database or f"sqlite:///{folder / 'mlflow.db'}"
        self.state = folder / ".medvision"

    @classmethod
    def make(cls, folder, database=None):
        """Make the project, with a database unless one is given."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "MLproject", folder)
        shutil.copytree(ROOT / "config", folder / "config")
        make_key(folder / ".medvision")
        made = cls(folder, database)
        MlflowClient(made.database, made.uri).create_experiment("tiny", artifact_location=str(folder / "mlruns" / "1"))
        with made.here():
            made.client.create_registered_model(NAME)
        return made

    def copy(self, folder):
        """Return a project of its own with what this one has, in its own place."""
        shutil.copytree(self.folder, folder)
        with sqlite3.connect(folder / "mlflow.db") as database:
            old, new = str(self.folder), str(folder)
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
                ("model_versions", "storage_location"),
            ):
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
        return type(self)(folder)

    @property
    def uri(self):
        """Return the URI of the registry with the gate."""
        return f"medvision+{self.database}"

    @property
    def client(self):
        """Return a client of the gated registry."""
        return MlflowClient(self.database, self.uri)

    @property
    def plain(self):
        """Return a client that passes the gate by."""
        return MlflowClient(self.database, self.database)

    @property
    def store(self):
        """Return the gated store itself."""
        return GatedStore(self.uri, self.database)

    @contextlib.contextmanager
    def here(self):
        """Work in the project's folder, as every step and the server do."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            yield self
        finally:
            os.chdir(before)

    def set(self, **settings):
        """Change settings of the section ``registry``."""
        path = self.folder / "config" / "config.yaml"
        text = path.read_text()
        for key, value in settings.items():
            lines = text.split("\n")
            (at,) = (number for number, line in enumerate(lines) if line.startswith(f"  {key}: "))
            lines[at] = f"  {key}: {json.dumps(value)}"
            text = "\n".join(lines)
        path.write_text(text)

    def package(self, seed=1, name=NAME):
        """Return the folder and digest of a real package of a network of two classes."""
        folder = self.folder / "packages" / f"{name}-{seed}" / "package"
        if not folder.exists():
            torch.manual_seed(seed)
            network = build_network(ARCHITECTURE, mean=(0.4,), std=(0.2,), pretrained=False)
            info = describe(
                network, name=name, dataset="tiny", classes=("no", "yes"), manifest_fingerprint="a" * 64,
                split_fingerprint="b" * 64, run_key=f"{seed:032x}", best_epoch=1, best_val_accuracy=0.9,
            )  # fmt: skip
            save_package(folder, info, [network])
        return folder, package_digest(folder)

    def log(self, seed=1, client=None, *, package=None, verdicts=()):
        """Log a package as a model of a run, with envelopes of verdicts beside it; return the model's id."""
        client = client or self.client
        run = client.create_run("1", tags={"mlflow.user": "trainer"})
        model = client.create_logged_model("1", NAME, source_run_id=run.info.run_id, model_type="classifier")
        folder = self.mould(package or self.package(seed)[0])
        client.log_model_artifacts(model.model_id, str(folder))
        for policy, envelope in dict(verdicts).items():
            self.attach(model.model_id, policy, envelope, client)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, 0)])
        client.set_terminated(run.info.run_id)
        return model.model_id

    def mould(self, package):
        """Return a package as an MLflow model; MLflow saves one of them, the others are copies of it."""
        mould = self.folder / "mould"
        if not mould.exists():
            save_model(
                mould, package_dir=package, code_path=CODE, pip_requirements=requirements(), metadata={},
            )  # fmt: skip
        shutil.rmtree(mould / "artifacts" / "package")
        shutil.copytree(package, mould / "artifacts" / "package")
        return mould

    def attach(self, model_id, policy, envelope, client=None):
        """Put the envelope of a verdict beside a logged model."""
        path = self.folder / f"{policy}.dsse.json"
        path.write_text(envelope)
        (client or self.client).log_model_artifact(model_id, str(path), artifact_path="verdicts")

    def verdict(self, seed=1, policy="production", **changed):
        """Return a passed verdict on a package under a policy of the project, with these fields changed."""
        with self.here():
            fingerprint = load_policy(policy).fingerprint
        fields = {
            "model": NAME, "dataset": "tiny", "state": "passed", "grade": "excellent", "policy": policy,
            "package_digest": self.package(seed)[1], "split_fingerprint": "b" * 64, "test_fingerprint": TEST_SET,
            "policy_fingerprint": fingerprint, "evaluation_fingerprint": "e" * 64, "predictions_sha256": "c" * 64,
            "champion_digest": None, "n": 100, "n_patients": 50, "looks": 1, "models_seen": 1, "ledger_head": "f" * 64,
            "figures": {"accuracy": 0.95, "balanced_accuracy": 0.94}, "made_at": "2026-11-21T12:00:00+00:00",
            "outcomes": (RuleOutcome("value.accuracy", "passed", 0.85, 0.95, 0.9, 0.99, "accuracy 0.95", ""),),
        }  # fmt: skip
        return Verdict(**{**fields, **changed})

    def signed(self, seed=1, policy="production", **changed):
        """Return the envelope of ``verdict``, signed with the project's key."""
        return sign(self.verdict(seed, policy, **changed), load_signing_key(self.state))

    def failed(self, seed=1, policy="production"):
        """Return the envelope of a verdict that is not passed."""
        outcome = RuleOutcome("value.accuracy", "failed", 0.85, 0.6, 0.5, 0.7, "accuracy 0.60 is below 0.85", "Train.")
        return self.signed(seed, policy, state="failed", outcomes=(outcome,))

    def register(self, seed=1, verdicts=None, *, semantic=None, package=None):
        """Create a version of a package, with a good verdict under both policies unless others are given."""
        if verdicts is None:
            verdicts = {policy: self.signed(seed, policy) for policy in POLICIES}
        model_id = self.log(seed, package=package, verdicts=verdicts)
        return self.create(model_id, semantic)

    def create(self, model_id, semantic=None, client=None):
        """Create a version of a logged model; return its number."""
        tags = {} if semantic is None else {"version": semantic}
        with self.here():
            made = (client or self.client).create_model_version(
                NAME, f"models:/{model_id}", model_id=model_id, tags=tags
            )
        return int(made.version)

    def approved(self, *arguments, **named):
        """Register a version that nothing stands against."""
        number = self.register(*arguments, **named)
        with self.here():
            approve(self.client, NAME, number, **SAID)
        return number

    def crown(self, seed=1, **named):
        """Register a version, and make it champion."""
        with self.here():
            number = self.approved(seed, **named)
            promote(self.client, NAME, number, reason="First.")
        return number

    def files(self, number):
        """Return the folder of a version's files."""
        return Path(self.plain.get_model_version_download_uri(NAME, str(number)))

    def state_of(self, client=None):
        """Return the aliases, the stages and the actions in the ledger."""
        client = client or self.client
        model = client.get_registered_model(NAME)
        stages = {
            int(found.version): found.current_stage
            for found in client.search_model_versions(f"name = '{NAME}'")
            if found.current_stage != "None"
        }
        return {alias: int(number) for alias, number in model.aliases.items()}, stages

    def sql(self, statement, *values):
        """Change the database past everything."""
        with sqlite3.connect(self.folder / "mlflow.db") as database:
            return database.execute(statement, values).fetchall()


def change_policies(registry):
    """Change the floor of accuracy of all policies of the project."""
    path = registry.folder / "config" / "validation.yaml"
    path.write_text(path.read_text().replace("accuracy: 0.85", "accuracy: 0.86"))


def forge(registry, seed, policy):
    """Return the envelope of a passed verdict that a key of somebody else's has signed."""
    stranger = registry.folder / "stranger"
    make_key(stranger)
    return sign(registry.verdict(seed, policy), load_signing_key(stranger))


def edit_envelope(envelope, **changed):
    """Return an envelope whose payload was edited, with the signature that it had."""
    parsed = json.loads(envelope)
    payload = {**json.loads(base64.b64decode(parsed["payload"])), **changed}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({**parsed, "payload": base64.b64encode(text.encode()).decode()}, indent=2) + "\n"


def _unvalidated(registry):
    return registry.register(verdicts={})


def _failed(registry):
    return registry.register(verdicts={policy: registry.failed(policy=policy) for policy in POLICIES})


def _forged(registry):
    return registry.register(verdicts={policy: forge(registry, 1, policy) for policy in POLICIES})


def _edited(registry):
    edited = {policy: edit_envelope(registry.failed(policy=policy), state="passed") for policy in POLICIES}
    return registry.register(verdicts=edited)


def _replayed(registry):
    return registry.register(verdicts={policy: registry.signed(2, policy) for policy in POLICIES})


def _renamed(registry):
    return registry.register(verdicts={policy: registry.signed(policy=policy, model="other") for policy in POLICIES})


def _tampered(registry):
    number = registry.register()
    path = registry.files(number) / "artifacts" / "package" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    return number


def _exchanged(registry):
    number = registry.register()
    folder = registry.files(number) / "artifacts" / "package"
    for path in registry.package(77)[0].iterdir():
        shutil.copy(path, folder)
    return number


def _other_code(registry):
    number = registry.register()
    path = registry.files(number) / CODE.name
    path.write_text(path.read_text() + "print('mine')\n")
    return number


def _other_place(registry):
    """Have MLflow load from a folder inside, where other code lies, and leave the root as it was."""
    number = registry.register()
    root = registry.files(number)
    (root / "evil").mkdir()
    for name in ("MLmodel", CODE.name):
        shutil.copy(root / name, root / "evil")
    (root / "evil" / CODE.name).write_text("print('mine')\n")
    text = (root / "MLmodel").read_text()
    (root / "MLmodel").write_text(text.replace("    code: null\n", "    code: null\n    data: evil\n"))
    return number


def _other_compiled_code(registry):
    """Put compiled code beside the loader that Python runs in its place, without a look at it."""
    number = registry.register()
    code = registry.files(number) / CODE.name
    evil = registry.folder / "evil.py"
    evil.write_text("print('mine')\n")
    py_compile.compile(
        str(evil), importlib.util.cache_from_source(str(code)),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip
    return number


def _other_packages(registry):
    number = registry.register()
    path = registry.files(number) / "requirements.txt"
    path.write_text(path.read_text() + "\nevil-package==6.6.6\n")
    return number


def _outdated(registry):
    old = {policy: registry.signed(policy=policy, policy_fingerprint="0" * 64) for policy in POLICIES}
    return registry.register(verdicts=old)


# Each kind of version that must not get through: how it is made, and the rule that stops it.
BAD = {
    "unvalidated": (_unvalidated, "verdict"),
    "failed": (_failed, "verdict"),
    "forged signature": (_forged, "signature"),
    "edited verdict": (_edited, "signature"),
    "replayed verdict of another package": (_replayed, "digest"),
    "verdict of another model": (_renamed, "name"),
    "tampered weights": (_tampered, "package"),
    "exchanged package": (_exchanged, "digest"),
    "other code": (_other_code, "loader"),
    "other code in another folder": (_other_place, "loader"),
    "other compiled code": (_other_compiled_code, "loader"),
    "other packages": (_other_packages, "loader"),
    "outdated policy": (_outdated, "policy"),
}
