"""What there is to prove a registered version, gathered from the registry, from MLflow's runs and from the project."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvision.config import CardConfig, Config
from medvision.documents.card_sections import CardRecords
from medvision.documents.evidence import Material
from medvision.documents.evidence_data import take_environment, take_runs, with_data
from medvision.documents.gathered import Gathered
from medvision.documents.model_card import CARD_HTML, CARD_RECORD, CardRecord, write_card
from medvision.documents.training_runs import find_training_runs
from medvision.errors import ConfigInvalid, DataInvalid, VerdictUntrusted
from medvision.models.package_files import INFO
from medvision.records import Details, Evaluation, PackageInfo, Verdict, as_dict, load_record, record_fingerprint
from medvision.registry.answers import translated
from medvision.registry.gate import ENVELOPE, PACKAGE, VERDICTS
from medvision.registry.ledger import parse
from medvision.registry.model_files import ModelFiles, open_files
from medvision.registry.packages import FoundModel
from medvision.registry.promotion import read_ledger_texts
from medvision.registry.verification import check_registry
from medvision.validation.attestation import open_envelope, render_json
from medvision.validation.gate import evaluation_fingerprint
from medvision.validation.keys import load_trusted_keys

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_METRICS, _DETAILS, _REPORT = "evaluation_metrics.json", "evaluation_details.json", "evaluation_report.html"


def gather_material(config: Config, found: FoundModel, client: MlflowClient, tracking_uri: str) -> Material:
    """Gather all that proves a registered version; what is not there is left to the index to name.

    Raises SourceUnusable: the version was made of no logged model. ConfigInvalid: it holds no package of medvision's.
    """
    gathered = Gathered(load_trusted_keys(config.paths.state))
    with translated(client):
        version = client.get_model_version(found.name, found.number)
        aliases = client.get_registered_model(found.name).aliases
    gathered.json("version.json", _describe_version(version, aliases))
    with open_files(found.source, tracking_uri) as files:
        info = _take_package(files, gathered, version.tags.get("medvision.package_digest"), found.uri)
        records = _take_reports(files, gathered, info)
        verdict = _take_verdicts(files, gathered, record_fingerprint(info))
    records = _without_unproven(records, verdict, gathered)
    runs = find_training_runs(client, info)
    take_runs(client, runs, gathered)
    registered_at = datetime.fromtimestamp(version.creation_timestamp / 1000, timezone.utc)
    number = version.tags.get("version") or f"number {version.version}"
    take_environment(gathered, info, found.name, number, registered_at)
    card = CardRecords(
        package=info,
        statements=_merge_statements(config.card, records.registered),
        made_on=registered_at.date().isoformat(),
        version=version.tags.get("version"),
        evaluation=records.evaluation,
        details=records.details,
        verdict=verdict,
    )
    _take_card(with_data(card, records.registered, runs, config, client, gathered), gathered)
    _take_ledger(client, found.name, gathered)
    gathered.take_keys()
    return Material(found.name, number, card.made_on, gathered.files, tuple(gathered.problems))


@dataclass(frozen=True)
class _Reports:
    evaluation: Evaluation | None
    details: Details | None
    registered: CardRecord | None


def _merge_statements(card: CardConfig, registered: CardRecord | None) -> CardConfig:
    """Return what people say of the model now, and, where they say nothing, what they said when it was registered."""
    before = registered.statements if registered else {}
    now = card.model_dump()
    # A card of another version of medvision may have other statements.
    return CardConfig.model_validate({name: now[name] or before.get(name) for name in now})


def _describe_version(version: ModelVersion, aliases: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": version.name,
        "number": int(version.version),
        "registered_at_ms": version.creation_timestamp,
        "stage": version.current_stage,
        "aliases": sorted(alias for alias, number in aliases.items() if int(number) == int(version.version)),
        "source": version.source,
        "run_id": version.run_id,
        "tags": {name: value for name, value in version.tags.items() if not name.startswith("mlflow.")},
    }


def _take_package(files: ModelFiles, gathered: Gathered, expected: str | None, uri: str) -> PackageInfo:
    path = files.path(f"{PACKAGE}/{INFO}")
    if path is None:
        raise ConfigInvalid(f"{uri} holds no model package of medvision's. Register one: medvision register")
    info = load_record(PackageInfo, path)
    gathered.files["package/package.json"] = path.read_bytes()
    found = record_fingerprint(info)
    if expected and found != expected:
        gathered.problems.append(f"package.json is {found[:12]}, but the registry says {expected[:12]}.")
    return info


def _take_reports(files: ModelFiles, gathered: Gathered, info: PackageInfo) -> _Reports:
    """Take the reports that medvision makes; whatever else somebody has put beside them may name patients."""
    report, card = files.path(f"reports/{_REPORT}"), files.path(f"reports/{CARD_HTML}")
    for path, name in ((report, _REPORT), (card, "model_card_as_registered.html")):
        if path is not None:
            gathered.files[f"reports/{name}"] = path.read_bytes()
    found = _Reports(
        evaluation=_take_record(Evaluation, files, _METRICS, gathered, keep=True),
        details=_take_record(Details, files, _DETAILS, gathered, keep=True),
        registered=_take_record(CardRecord, files, CARD_RECORD, gathered, keep=False),
    )
    digest = record_fingerprint(info)
    for name, record in ((_METRICS, found.evaluation), (_DETAILS, found.details), (CARD_RECORD, found.registered)):
        if record is not None and record.package_digest != digest:
            gathered.problems.append(f"{name} is about package {record.package_digest[:12]}, not {digest[:12]}.")
    return found


def _without_unproven(records: _Reports, verdict: Verdict | None, gathered: Gathered) -> _Reports:
    """Leave out figures that are not those of the verdict: nothing else protects their files."""
    if verdict is None:
        return records
    evaluation, details = records.evaluation, records.details
    if evaluation is not None and evaluation_fingerprint(evaluation) != verdict.evaluation_fingerprint:
        gathered.problems.append(f"{_METRICS} was left out: it is not the evaluation that the verdict was given on.")
        del gathered.files[f"reports/{_METRICS}"]
        evaluation = None
    if details is not None and (evaluation is None or details.predictions_sha256 != verdict.predictions_sha256):
        gathered.problems.append(f"{_DETAILS} was left out: it is not of the evaluation that the verdict was given on.")
        del gathered.files[f"reports/{_DETAILS}"]
        details = None
    return _Reports(evaluation, details, records.registered)


def _take_record(kind: Any, files: ModelFiles, name: str, gathered: Gathered, *, keep: bool) -> Any:
    path = files.path(f"reports/{name}")
    if path is None:
        return None
    try:
        record = load_record(kind, path)
    except DataInvalid:
        gathered.problems.append(f"{name} is damaged, or of another version of medvision.")
        return None
    if keep:
        gathered.files[f"reports/{name}"] = path.read_bytes()
    return record


def _take_verdicts(files: ModelFiles, gathered: Gathered, digest: str) -> Verdict | None:
    """Take each verdict on this package that a trusted key has signed, and name every other; return the newest."""
    held: list[Verdict] = []
    for name in files.names(VERDICTS):
        text = files.text(f"{VERDICTS}/{name}")
        if not name.endswith(ENVELOPE) or text is None:
            continue
        try:
            verdict = open_envelope(text, gathered.trusted)
        except VerdictUntrusted as error:
            gathered.problems.append(f"{name} was left out: {error}")
            continue
        if verdict.package_digest != digest:
            gathered.problems.append(f"{name} is about package {verdict.package_digest[:12]}, not {digest[:12]}.")
            continue
        if name != f"{verdict.policy}{ENVELOPE}":
            gathered.problems.append(f"{name} was left out: it is a verdict under policy {verdict.policy}.")
            continue
        gathered.files[f"verdicts/{name}"] = text.encode()
        gathered.signers.add(json.loads(text)["signatures"][0]["keyid"])
        held.append(verdict)
    newest = max(held, key=lambda verdict: verdict.made_at, default=None)
    if newest is None or not newest.passed:
        state = newest.state.replace("_", " ") if newest else "none"
        gathered.problems.append(f"The version is not validated (verdict: {state}): it must not be used for patients.")
    if newest is not None:
        # What is signed, and not the file beside it, which nothing protects.
        gathered.files["reports/medical_validation.json"] = render_json(newest).encode()
    return newest


def _take_card(card: CardRecords, gathered: Gathered) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for path in write_card(Path(scratch), card):
            gathered.files[path.name] = path.read_bytes()


def _take_ledger(client: MlflowClient, name: str, gathered: Gathered) -> None:
    try:
        texts = read_ledger_texts(client, name)
    except ConfigInvalid:
        # Not in its own words, which name the server.
        gathered.problems.append("There is no ledger: the registry has no gate, and nothing proves its promotions.")
        return
    gathered.problems += check_registry(client, name, gathered.trusted)
    entries = [parse(texts[number]) for number in sorted(texts)]
    gathered.signers |= {entry.key_id for entry in entries if entry}
    gathered.json("ledger/ledger.json", {"name": name, "entries": [as_dict(entry) for entry in entries if entry]})
