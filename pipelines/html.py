"""Write evaluation_report.html from the records of a model, with its verdict where there is one."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from pipelines.models import DETAILS_FILE, ENVELOPE_FILE, EVALUATION_FILE, PACKAGE, outputs_dir, results_dir
from pipelines.pictures import PICTURES

if TYPE_CHECKING:
    from markupsafe import Markup

    from medvision.config import Config
    from medvision.tracking.recorder import Recorder

REPORT_FILE = "evaluation_report.html"


def write_html(config: Config, recorder: Recorder) -> None:
    """Render the report of what stands in the model's folder of results, and record it."""
    from medvision.data.audit import AUDIT_FILE
    from medvision.evaluation.details_tables import describe_tables
    from medvision.evaluation.html_report import ReportData, render_html
    from medvision.files import write_text
    from medvision.models.package import load_info
    from medvision.records import Audit, Details, Evaluation, load_record

    folder = results_dir(config)
    evaluation = load_record(Evaluation, folder / EVALUATION_FILE)
    details = load_record(Details, folder / DETAILS_FILE)
    report = ReportData(
        evaluation=evaluation,
        package=load_info(outputs_dir(config) / PACKAGE),
        made_on=date.today().isoformat(),
        pictures={name.removesuffix(".png"): (folder / name).read_bytes() for name in PICTURES},
        verdict=_verdict(config, evaluation.package_digest),
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
    recorder.artifact(folder / REPORT_FILE, folder="evaluation")


def _verdict(config: Config, package_digest: str) -> Markup | None:
    """Return the section of the verdict on this very package, if one is signed."""
    from markupsafe import Markup

    from medvision.validation.rendering import render_html
    from pipelines.verdict import load_signed_verdict

    if not (results_dir(config) / ENVELOPE_FILE).is_file():
        return None
    verdict = load_signed_verdict(config)
    # The function escapes every text itself.
    return Markup(render_html(verdict)) if verdict.package_digest == package_digest else None
