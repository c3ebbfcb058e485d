"""The model card of a model, from its records in the project's folders."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.models import DETAILS_FILE, results_dir

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import Audit, Details, Evaluation, PackageInfo, Verdict


def write_model_card(
    folder: Path,
    config: Config,
    info: PackageInfo,
    evaluation: Evaluation | None,
    verdict: Verdict | None,
    *,
    version: str | None = None,
) -> tuple[Path, ...]:
    """Write the card of a package into a folder, as Markdown, HTML and JSON; return the paths.

    ``version`` is the semantic version, None where it is not chosen yet.
    """
    from medvision.data.lineage import count_sides, load_rows
    from medvision.documents.card_sections import CardRecords
    from medvision.documents.model_card import write_card
    from medvision.documents.training_runs import describe_weights

    dataset = config.paths.state / "datasets" / info.dataset
    rows = load_rows(dataset, manifest_fingerprint=info.manifest_fingerprint, split_fingerprint=info.split_fingerprint)
    return write_card(
        folder,
        CardRecords(
            package=info,
            statements=config.card,
            made_on=date.today().isoformat(),
            version=version,
            evaluation=evaluation,
            details=_details(config, evaluation),
            verdict=verdict,
            audit=_audit(dataset, info),
            sizes=count_sides(rows) if rows is not None else (),
            weights=describe_weights(config, info, []),
        ),
    )


def _details(config: Config, evaluation: Evaluation | None) -> Details | None:
    """Return the details of this very evaluation, if they are there."""
    from medvision.errors import DataInvalid
    from medvision.records import Details, load_record

    try:
        details = load_record(Details, results_dir(config) / DETAILS_FILE)
    except DataInvalid:
        return None
    same = evaluation is not None and details.predictions_sha256 == evaluation.predictions_sha256
    return details if same else None


def _audit(dataset: Path, info: PackageInfo) -> Audit | None:
    """Return the audit of the split that a package was trained on, if it is there."""
    from medvision.data.audit import AUDIT_FILE
    from medvision.errors import DataInvalid
    from medvision.records import Audit, load_record

    try:
        audit = load_record(Audit, dataset / AUDIT_FILE)
    except DataInvalid:
        return None
    return audit if audit.split_fingerprint == info.split_fingerprint else None
