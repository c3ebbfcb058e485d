"""Write evaluation_report.html from the records of a model, with its verdict where there is one."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import TYPE_CHECKING

from pipelines.models import DETAILS_FILE, ENVELOPE_FILE, PACKAGE, outputs_dir, results_dir
from pipelines.pictures import PICTURES, WITH_IMAGES

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from medvision.config import Config
    from medvision.records import Evaluation
    from medvision.tracking.recorder import Recorder

REPORT_FILE = "evaluation_report.html"


def write_html(config: Config, recorder: Recorder, evaluation: Evaluation) -> None:
    """Render the report of an evaluation with what stands in the model's folder of results, and record it.

    What is recorded is without images of patients unless ``tracking.share_images`` allows them.
    """
    from medvision.data.audit import AUDIT_FILE
    from medvision.evaluation.details_tables import describe_tables
    from medvision.evaluation.html_report import ReportData, render_html
    from medvision.files import write_text
    from medvision.models.package import load_info
    from medvision.records import Audit, Details, load_record

    folder = results_dir(config)
    details = load_record(Details, folder / DETAILS_FILE)
    report = ReportData(
        evaluation=evaluation,
        package=load_info(outputs_dir(config) / PACKAGE),
        made_on=date.today().isoformat(),
        pictures=_pictures(folder),
        verdict=_verdict(config, evaluation),
        uncalibrated=details.uncalibrated,
        operating_points=details.operating_points,
        conformal=details.conformal,
        selections=details.selections,
        abstention=details.abstention,
        tables=describe_tables(details),
        speed=details.speed,
        looks=details.looks,
        audit=load_record(Audit, config.dataset_dir / AUDIT_FILE),
    )
    write_text(folder / REPORT_FILE, render_html(report))
    if config.tracking.share_images:
        recorder.artifact(folder / REPORT_FILE, folder="evaluation")
        return
    shown = {name: picture for name, picture in report.pictures.items() if f"{name}.png" not in WITH_IMAGES}
    shareable = folder / "shareable" / REPORT_FILE
    write_text(shareable, render_html(dataclasses.replace(report, pictures=shown)))
    recorder.artifact(shareable, folder="evaluation")


def _pictures(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for name in PICTURES if (path := folder / name).is_file()}


def _verdict(config: Config, evaluation: Evaluation) -> Markup | None:
    """Return the section of the verdict on this very evaluation, if one is signed by a key that is trusted here."""
    from markupsafe import Markup

    from medvision.errors import VerdictUntrusted
    from medvision.validation.rendering import render_html
    from pipelines.verdict import load_signed_verdict

    if not (results_dir(config) / ENVELOPE_FILE).is_file():
        return None
    try:
        verdict = load_signed_verdict(config)
    except VerdictUntrusted:
        # An older verdict, of a key that was changed since, is no reason to stop: it is not shown.
        return None
    same = (verdict.package_digest, verdict.predictions_sha256)
    if same != (evaluation.package_digest, evaluation.predictions_sha256):
        return None
    # The function escapes every text itself.
    return Markup(render_html(verdict))
