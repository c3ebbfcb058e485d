"""Hold a model's evaluation against the policy: passed, failed or too little evidence, with every reason, signed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset
from pipelines.html import write_html
from pipelines.models import (
    ENVELOPE_FILE,
    EVALUATION_FILE,
    PACKAGE,
    PREDICTIONS_FILE,
    VERDICT_FILE,
    outputs_dir,
    results_dir,
)
from pipelines.options import (
    ConfigFile,
    Dataset,
    DatasetPath,
    Model,
    OnLeak,
    PatientPattern,
    Policies,
    PolicyName,
    Set,
    configure,
)
from pipelines.scoring import score_test_set

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from medvision.config import Config
    from medvision.evaluation.predictions import Predictions
    from medvision.models.network import Network
    from medvision.records import Evaluation, PackageInfo, Verdict
    from medvision.tracking.recorder import Recorder
    from medvision.validation.evidence import AgainstChampion, Evidence, Objection
    from medvision.validation.policy import Policy
    from medvision.validation.test_ledger import Usage

VERDICT_TEXT = "medical_validation.txt"


def validate(
    model: Model = None,
    policy: PolicyName = None,
    policies: Policies = None,
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Verdict:
    """Hold a model's evaluation against the medical policy, and sign the verdict."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_,
        model=model, dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak,
    )  # fmt: skip
    with open_run(settings, step="validate", name=f"validate {settings.training.model}") as recorder:
        return run_validate(settings, recorder, prepare_dataset(settings), policy=policy, policies=policies)


def run_validate(
    config: Config,
    recorder: Recorder,
    dataset: SplitDataset,
    *,
    policy: str | None = None,
    policies: Path | None = None,
) -> Verdict:
    """Do the step inside a run; GateFailed, once the verdict is signed and recorded, unless it is passed."""
    from medvision.errors import GateFailed
    from medvision.validation.gate import judge
    from medvision.validation.policy import check_class_names, load_policy

    rules = load_policy(policy, policies)
    check_class_names(rules, dataset.manifest.classes)
    key = _signing_key(config)
    # Whatever stops this attempt, an older verdict does not stand in for it.
    for name in (ENVELOPE_FILE, VERDICT_FILE, VERDICT_TEXT):
        (results_dir(config) / name).unlink(missing_ok=True)
    case = load_case(config)
    _say_plan(case)
    verdict = judge(case.evaluation, rules, _gather(case, rules, dataset, config))
    _record(verdict, key, config, recorder)
    write_html(config, recorder, case.evaluation)
    if not verdict.passed:
        n_open = sum(not outcome.passed for outcome in verdict.outcomes)
        raise GateFailed(
            f"{verdict.model} did not pass its medical validation ({verdict.state.replace('_', ' ')}): {n_open} of "
            f"{len(verdict.outcomes)} rules are not met (above, and in {results_dir(config) / VERDICT_FILE}). Nothing "
            "is registered."
        )
    return verdict


@dataclass(frozen=True)
class Case:
    """A model package with its predictions; ``evaluation`` is computed from them, ``stated`` is what the file says."""

    info: PackageInfo
    networks: tuple[Network, ...]
    digest: str
    predictions: Predictions
    stated: Evaluation
    evaluation: Evaluation


def load_case(config: Config) -> Case:
    """Load what is to be judged, or verified, and compute the figures again from the predictions.

    Raises GateFailed if the predictions have no figures, as those with a NaN.
    """
    from medvision.errors import DataInvalid, GateFailed
    from medvision.evaluation.predictions import load_predictions
    from medvision.files import sha256_file
    from medvision.models.package import load_package
    from medvision.records import Evaluation, load_record, record_fingerprint
    from medvision.validation.integrity import recompute

    package, folder = outputs_dir(config) / PACKAGE, results_dir(config)
    info, networks = load_package(package)
    digest = record_fingerprint(info)
    predictions = load_predictions(folder / PREDICTIONS_FILE)
    stated = load_record(Evaluation, folder / EVALUATION_FILE)
    sha256 = sha256_file(folder / PREDICTIONS_FILE)
    try:
        evaluation = recompute(predictions, info, package_digest=digest, predictions_sha256=sha256)
    except DataInvalid as error:
        raise GateFailed(f"{folder / PREDICTIONS_FILE} can't be judged. {error}") from None
    return Case(info, networks, digest, predictions, stated, evaluation)


def _say_plan(case: Case) -> None:
    """Say by which plan limits are judged, if the evaluation was made by another one."""
    stated, ours = case.stated.plan, case.evaluation.plan
    if stated != ours:
        say(
            f"The evaluation has {stated.replicates:,} replicates with seed {stated.seed}. Limits are judged with "
            f"{ours.replicates:,} and seed {ours.seed}, as of every model; of the evaluation's own, values and counts "
            "were compared."
        )


def _signing_key(config: Config) -> Ed25519PrivateKey:
    """Return the key to sign with, made now if there is none: the first pipeline of a project must not fail for it."""
    from medvision.validation.keys import PRIVATE_KEY, has_key, keys_dir, load_signing_key, make_key

    if not has_key(config.paths.state):
        make_key(config.paths.state)
        path = keys_dir(config.paths.state) / PRIVATE_KEY
        say("!! There was no key to sign verdicts with, and one was made:")
        say(f"!! {path}, readable by you alone. Keep a copy of it in a safe place.")
    return load_signing_key(config.paths.state)


def _gather(case: Case, policy: Policy, dataset: SplitDataset, config: Config) -> Evidence:
    """Gather what a verdict rests on beside the figures; only what the policy asks for is measured."""
    from medvision.validation.evidence import Evidence
    from medvision.validation.subgroups import measure_subgroups
    from medvision.validation.test_ledger import fingerprint_test_set

    test_fingerprint = fingerprint_test_set(dataset.manifest, dataset.split)
    objections = find_objections(case, dataset, config, test_fingerprint)
    usage, changed = _look(case, config, test_fingerprint)
    asks, is_same = policy.rules, not objections and not changed
    return Evidence(
        test_fingerprint=test_fingerprint,
        usage=usage,
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        latency_p95_ms=_measure_latency(case, config) if asks.latency_p95_ms is not None else None,
        audit=dataset.audit,
        # On other cases than those of the predictions there is nothing to compare.
        comparison=_compare(case, asks.non_inferiority.figure, dataset, config)
        if asks.non_inferiority is not None and is_same
        else None,
        subgroups=measure_subgroups(case.predictions, _columns(dataset, policy), policy) if is_same else None,
        objections=(*objections, *changed),
    )


def _columns(dataset: SplitDataset, policy: Policy) -> dict[str, pd.Series]:
    """Return the columns of the policy's subgroups that the dataset has, for the test images."""
    floor, rows = policy.rules.subgroup_floor, dataset.manifest.rows.iloc[dataset.split.indices("test")]
    return {column: rows[column] for column in (floor.columns if floor else ()) if column in rows.columns}


def find_objections(case: Case, dataset: SplitDataset, config: Config, test_fingerprint: str) -> list[Objection]:
    """Return what is wrong with the evidence: figures, predictions or test set that are not those at hand."""
    from medvision.validation.integrity import check_metrics, check_origin, check_rows, check_scores, choose_sample

    predictions = case.predictions
    found = [
        check_metrics(case.stated, case.evaluation),
        check_origin(
            predictions,
            case.info,
            package_digest=case.digest,
            test_fingerprint=test_fingerprint,
            split_fingerprint=dataset.split.fingerprint,
        ),
        check_rows(predictions, dataset.manifest, dataset.split),
    ]
    if found[1] is None and found[2] is None:
        sample = choose_sample(len(predictions.y_true))
        found.append(check_scores(predictions, sample, _score_again(case, dataset, config, sample)))
    return [objection for objection in found if objection is not None]


def _score_again(case: Case, dataset: SplitDataset, config: Config, sample: np.ndarray) -> np.ndarray:
    """Score test images straight from their files, past the cache, through what will answer for them in use."""
    import numpy as np

    from medvision.models.devices import choose_device
    from medvision.serving.predictor import Predictor

    sources = dataset.manifest.sources()
    predictor = Predictor(outputs_dir(config) / PACKAGE, device=choose_device(config.performance))
    answers = predictor.predict([sources[row] for row in dataset.split.indices("test")[sample]])
    return np.array([[answer.probabilities[name] for name in case.info.classes] for answer in answers])


def _look(case: Case, config: Config, test_fingerprint: str) -> tuple[Usage, list[Objection]]:
    """Write down that the test set is looked at; another one, or a ledger that was touched, is an objection."""
    from medvision.errors import LedgerBroken, TestSetChanged
    from medvision.validation.evidence import Objection
    from medvision.validation.test_ledger import Usage, look, usage

    folder = config.dataset_dir
    try:
        look(folder, step="validate", model=case.info.name, package_digest=case.digest,
             test_fingerprint=test_fingerprint)  # fmt: skip
        return usage(folder), []
    except TestSetChanged as error:
        return usage(folder), [Objection("test_set", str(error), "Restore the test set.")]
    except LedgerBroken as error:
        return Usage(0, 0, ""), [Objection("ledger", str(error), "Restore the ledger.")]


def _measure_latency(case: Case, config: Config) -> float:
    """Return the 95th percentile of the time that single images take, ms."""
    from medvision.evaluation.scoring import place
    from medvision.evaluation.speed import measure_latency
    from medvision.models.devices import choose_device

    device = choose_device(config.performance)
    return measure_latency(case.info, [place(network, device) for network in case.networks]).p95_ms


def _compare(case: Case, figure: str, dataset: SplitDataset, config: Config) -> AgainstChampion:
    """Score the champion of the registry on the same test images, and compare, unless it is another kind of model."""
    from medvision.models.package import load_package
    from medvision.records import record_fingerprint
    from medvision.registry.packages import download_champion
    from medvision.tracking.mlflow_sink import tracking_uri
    from medvision.validation.comparison import compare, find_obstacle
    from medvision.validation.evidence import AgainstChampion

    with tempfile.TemporaryDirectory() as folder:
        package = download_champion(tracking_uri(config), case.info.name, Path(folder))
        if package is None:
            return AgainstChampion(None, None)
        info, networks = load_package(package)
        digest, obstacle = record_fingerprint(info), find_obstacle(case.info, info)
        if obstacle is not None:
            return AgainstChampion(digest, None, obstacle)
        champion = score_test_set(info, networks, dataset, config).predictions
    return compare(case.predictions, champion, case.evaluation, figure)


def _record(verdict: Verdict, key: Ed25519PrivateKey, config: Config, recorder: Recorder) -> None:
    from medvision.files import write_text
    from medvision.validation.attestation import render_json, sign
    from medvision.validation.rendering import render_text

    folder, text = results_dir(config), render_text(verdict)
    for name, content in (
        (VERDICT_FILE, render_json(verdict)), (VERDICT_TEXT, text), (ENVELOPE_FILE, sign(verdict, key)),
    ):  # fmt: skip
        write_text(folder / name, content)
        recorder.artifact(folder / name, folder="validation")
    recorder.tags(
        {
            "medvision.verdict": verdict.state,
            "medvision.policy": verdict.policy,
            "medvision.package_digest": verdict.package_digest,
            "medvision.test_fingerprint": verdict.test_fingerprint,
            "medvision.ledger_head": verdict.ledger_head,
        }
    )
    recorder.metrics({"validation/passed": float(verdict.passed), "validation/looks": float(verdict.looks)}, step=0)
    say(text)


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(validate)
