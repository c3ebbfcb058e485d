"""What an evidence archive holds of images and of training: from the project, from MLflow's runs, from the card."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvision.config import Config
from medvision.data.audit import AUDIT_FILE
from medvision.data.lineage import count_sides, load_rows, without_names
from medvision.data.normalization import STATS_FILE
from medvision.documents.card_sections import CardRecords
from medvision.documents.gathered import Gathered
from medvision.documents.model_card import CardRecord
from medvision.documents.sbom import make_sbom
from medvision.documents.training_runs import TrainingRun, describe_weights, search_runs
from medvision.files import project_root
from medvision.records import Audit, Normalization, PackageInfo, as_dict, record_fingerprint
from medvision.registry.answers import translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOCK = "requirements.lock"


def take_runs(client: MlflowClient, runs: list[TrainingRun], gathered: Gathered) -> None:
    """Take settings, history and packages of the training runs, and the commit of the code."""
    for suffix, run in _numbered(runs):
        gathered.json(f"training/config{suffix}.json", run.settings)
        history = _artifact(client, run.run_id, "training_history.json")
        if history is not None:
            gathered.files[f"training/history{suffix}.json"] = history
    if runs:
        gathered.json(
            "training/source.json",
            {
                "git_commit": runs[0].git_commit,
                "runs": [{**dataclasses.asdict(run), "settings": f"config{n}.json"} for n, run in _numbered(runs)],
            },
        )
        packages = _artifact(client, runs[0].run_id, "environment/packages.txt")
        if packages is not None:
            gathered.files["environment/packages.txt"] = packages


def _numbered(runs: list[TrainingRun]) -> Iterator[tuple[str, TrainingRun]]:
    yield from (("" if number == 1 else f"_{number}", run) for number, run in enumerate(runs, start=1))


def take_environment(gathered: Gathered, info: PackageInfo, name: str, version: str, made_at: datetime) -> None:
    """Take the bill of materials of what the model was trained with, and the project's lock file."""
    packages = gathered.files.get("environment/packages.txt")
    if packages is not None:
        sbom = make_sbom(
            packages.decode(), name=name, version=version, digest=record_fingerprint(info), made_at=made_at
        )
        gathered.files["environment/sbom.cdx.json"] = sbom.encode()
    lock = project_root() / _LOCK
    if lock.is_file():
        lines = lock.read_text(encoding="utf-8").splitlines(keepends=True)
        # A package that was installed from a folder names it.
        gathered.files[f"environment/{_LOCK}"] = "".join(line for line in lines if "file:" not in line).encode()


def with_data(
    card: CardRecords,
    registered: CardRecord | None,
    runs: list[TrainingRun],
    config: Config,
    client: MlflowClient,
    gathered: Gathered,
) -> CardRecords:
    """Add what is known of the images: from the project, from the card as it was registered, or from MLflow."""
    info = card.package
    folder = config.paths.state / "datasets" / info.dataset
    rows = load_rows(folder, manifest_fingerprint=info.manifest_fingerprint, split_fingerprint=info.split_fingerprint)
    if rows is not None:
        gathered.files["data/images.csv"] = rows.to_csv(index=False, lineterminator="\n").encode()
    audit = _find_audit(info, registered, folder, runs, client)
    if audit is not None:
        gathered.json("data/audit.json", as_dict(audit))
    statistics = _find_normalization(info, folder, client)
    if statistics is not None:
        gathered.json("data/normalization_stats.json", as_dict(statistics))
    return dataclasses.replace(
        card,
        audit=audit,
        sizes=count_sides(rows) if rows is not None else registered.sizes if registered else (),
        weights=registered.weights if registered and registered.weights else describe_weights(config, info, runs),
    )


def _find_audit(
    info: PackageInfo, registered: CardRecord | None, folder: Path, runs: list[TrainingRun], client: MlflowClient
) -> Audit | None:
    """Return the audit of the split that the package was trained on, without names of files."""
    places = [(folder / AUDIT_FILE).read_bytes()] if (folder / AUDIT_FILE).is_file() else []
    found = [registered.audit if registered else None]
    found += [
        _parse(Audit, content)
        for content in [*places, *(_artifact(client, run.run_id, "data/audit.json") for run in runs)]
    ]
    audit = next((each for each in found if each and each.split_fingerprint == info.split_fingerprint), None)
    return audit and without_names(audit)


def _find_normalization(info: PackageInfo, folder: Path, client: MlflowClient) -> Normalization | None:
    local = (folder / STATS_FILE).read_bytes() if (folder / STATS_FILE).is_file() else None
    wanted = f"tags.`medvision.split_fingerprint` = '{info.split_fingerprint}' AND tags.`medvision.step` = 'normalize'"
    remote = (_artifact(client, run.info.run_id, f"data/{STATS_FILE}") for run in search_runs(client, wanted))
    for content in (local, *remote):
        statistics = _parse(Normalization, content)
        if statistics is not None and statistics.split_fingerprint == info.split_fingerprint:
            return statistics
    return None


def _parse(kind: Any, content: bytes | None) -> Any:
    """Return a record of a file's content; None if there is none, or it is damaged."""
    from pydantic import TypeAdapter, ValidationError

    if content is None:
        return None
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError:
        return None


def _artifact(client: MlflowClient, run_id: str, path: str) -> bytes | None:
    """Return a run's artifact; None if the run has none of this name."""
    folder = path.rpartition("/")[0] or None
    with translated(client), tempfile.TemporaryDirectory() as scratch:
        if path not in {entry.path for entry in client.list_artifacts(run_id, folder)}:
            return None
        return Path(client.download_artifacts(run_id, path, scratch)).read_bytes()
