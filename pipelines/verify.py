"""Verify that a verdict is signed, and that nothing it speaks of was touched since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.audit_log import verify_log
from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset
from pipelines.models import ENVELOPE_FILE, PACKAGE, PREDICTIONS_FILE, VERDICT_FILE, outputs_dir, results_dir
from pipelines.options import (
    ConfigFile,
    Dataset,
    DatasetPath,
    Model,
    OnLeak,
    PatientPattern,
    Policies,
    Set,
    configure,
)
from pipelines.validate import load_case
from pipelines.verdict import load_signed_verdict

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import Verdict


@dataclass(frozen=True)
class Verification:
    """What was verified, in order."""

    model: str
    state: str
    checks: tuple[str, ...]


def verify(
    model: Model = None,
    policies: Policies = None,
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Verification:
    """Verify a verdict's signature, and that model, predictions, policy and test set are those that it names."""
    settings = configure(
        config, dataset, set_,
        model=model, dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak,
    )  # fmt: skip
    verification = run_verify(settings, prepare_dataset(settings), policies=policies)
    _verify_audit_log(settings)
    return verification


def run_verify(config: Config, dataset: SplitDataset, *, policies: Path | None = None) -> Verification:
    """Say a line a check; GateFailed, naming what was touched, if any is off."""
    from medvision.errors import GateFailed, MedvisionError

    verdict = load_signed_verdict(config)
    say("ok       signature")
    checks: dict[str, Callable[[], str | None]] = {
        "verdict": lambda: _check_text(verdict, config),
        "model package": lambda: _check_package(verdict, config),
        "predictions": lambda: _check_predictions(verdict, config),
        "metrics": lambda: _check_metrics(verdict, config),
        "policy": lambda: _check_policy(verdict, policies),
        "test set": lambda: _check_test_set(verdict, dataset, config),
        "ledger": lambda: _check_ledger(verdict, config),
    }
    touched = []
    for name, check in checks.items():
        try:
            problem = check()
        except MedvisionError as error:
            problem = str(error)
        say(f"TOUCHED  {name}: {problem}" if problem else f"ok       {name}")
        touched += [f"{name}: {problem}"] if problem else []
    if touched:
        raise GateFailed(f"The verdict on {verdict.model} no longer holds. {' '.join(touched)}")
    say(f"The verdict on {verdict.model}, {verdict.state.replace('_', ' ')}, is of {verdict.made_at} and holds.")
    return Verification(verdict.model, verdict.state, ("signature", *checks))


def _check_text(verdict: Verdict, config: Config) -> str | None:
    from medvision.validation.attestation import render_json

    path = results_dir(config) / VERDICT_FILE
    is_signed = path.is_file() and path.read_bytes() == render_json(verdict).encode()
    return None if is_signed else f"{path} is not what was signed, which stands in {ENVELOPE_FILE}."


def _check_package(verdict: Verdict, config: Config) -> str | None:
    from medvision.models.package import load_package
    from medvision.records import record_fingerprint

    package = outputs_dir(config) / PACKAGE
    info, _ = load_package(package)
    return _differs(str(package), verdict.package_digest, record_fingerprint(info))


def _check_predictions(verdict: Verdict, config: Config) -> str | None:
    from medvision.files import sha256_file

    path = results_dir(config) / PREDICTIONS_FILE
    if not path.is_file():
        return f"{path} is missing."
    return _differs(str(path), verdict.predictions_sha256, sha256_file(path))


def _check_metrics(verdict: Verdict, config: Config) -> str | None:
    from medvision.validation.gate import evaluation_fingerprint
    from medvision.validation.integrity import check_metrics

    case = load_case(config)
    objection = check_metrics(case.stated, case.evaluation)
    if objection is not None:
        return objection.message
    return _differs(
        "what the predictions give", verdict.evaluation_fingerprint, evaluation_fingerprint(case.evaluation)
    )


def _check_policy(verdict: Verdict, policies: Path | None) -> str | None:
    from medvision.validation.policy import load_policy

    policy = load_policy(verdict.policy, policies)
    return _differs(f"policy {policy.name}", verdict.policy_fingerprint, policy.fingerprint)


def _check_test_set(verdict: Verdict, dataset: SplitDataset, config: Config) -> str | None:
    from medvision.validation.integrity import check_pixels
    from medvision.validation.test_ledger import fingerprint_test_set

    found = fingerprint_test_set(dataset.manifest, dataset.split)
    touched = check_pixels(dataset.manifest, dataset.split, workers=config.performance.workers)
    if touched is not None:
        return f"{touched.message}."
    return _differs("the test set", verdict.test_fingerprint, found)


def _check_ledger(verdict: Verdict, config: Config) -> str | None:
    from medvision.validation.test_ledger import check_chain

    entries = check_chain(config.dataset_dir)
    if verdict.looks and (len(entries) < verdict.looks or entries[verdict.looks - 1].hash != verdict.ledger_head):
        return f"entry {verdict.looks} is not the one that the verdict was made after."
    return None


def _verify_audit_log(config: Config) -> None:
    """Verify the audit log of predictions, where there is one; LedgerBroken names the first row that was touched."""
    from medvision.serving.audit_place import is_file, parse_url

    place = parse_url(config.audit_url)
    if not is_file(place) or Path(str(place.database)).is_file():
        say("The audit log of predictions:")
        verify_log(config, place)


def _differs(what: str, signed: str, found: str) -> str | None:
    return None if found == signed else f"{what} is {found[:12]}, and {signed[:12]} was signed."


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(verify)
