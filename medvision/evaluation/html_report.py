"""evaluation_report.html: an evaluation as a clinician and an engineer would rather read it, in one file.

It needs nothing beside itself: pictures and styles are within, there is no script, and a content security policy
forbids the browser to fetch anything. All texts of the data are escaped by jinja2; the sentences stand in templates/.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medvision.evaluation.figures import ERRORS, OVERALL
from medvision.evaluation.wording import describe_looks, heading, rough_classes
from medvision.records import (
    Abstention,
    Audit,
    ClassFigures,
    ConformalFigures,
    Evaluation,
    Figure,
    OperatingPointFigures,
    PackageInfo,
    Selection,
    Speed,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# Those with a place and a caption in the templates; any other comes last.
_PICTURES = (
    "confusion_matrix", "per_class_metrics", "roc_curve", "precision_recall_curve", "worst_mistakes",
    "reliability_diagram", "confidence_distribution", "risk_coverage", "decision_curve",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of texts with a note on how to read it; ``rows`` are as long as ``header``, and named by their first."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ReportData:
    """All that the report tells; a section without its data is left out.

    ``made_on``: the date, as it is shown. ``pictures``: PNG by the name of its file without the suffix, as roc_curve.
    ``verdict``: HTML of a trusted function; an element of the class passed, failed or insufficient_evidence is marked.
    ``uncalibrated``: ece, brier and nll before temperature scaling. ``looks``: how often the test split was opened.
    """

    evaluation: Evaluation
    package: PackageInfo
    made_on: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    verdict: Markup | None = None
    uncalibrated: Mapping[str, float] = field(default_factory=dict)
    operating_points: tuple[OperatingPointFigures, ...] = ()
    conformal: ConformalFigures | None = None
    selections: tuple[Selection, ...] = ()
    abstention: Abstention | None = None
    tables: tuple[Table, ...] = ()
    speed: Speed | None = None
    looks: int | None = None
    audit: Audit | None = None


def render_html(report: ReportData) -> str:
    """Return the report as one HTML page."""
    return make_environment().get_template("report.html").render(
        report=report,
        evaluation=report.evaluation,
        package=report.package,
        explained=_explained(report),
        few=rough_classes(report.evaluation),
    )  # fmt: skip


def _explained(report: ReportData) -> list[ClassFigures]:
    """Return the classes that are told of in words: the critical ones, or all."""
    critical = {point.class_name for point in report.package.operating_points}
    classes = report.evaluation.per_class
    return [each for each in classes if each.name in critical] or list(classes)


def make_environment(*folders: Path) -> Environment:
    """Return what renders the report's templates, and those of other folders, which may use its styles and words."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=_number, of_hundred=_of_hundred, rest_of_hundred=_rest_of_hundred, bound=_bound, data_uri=_data_uri,
        label=heading, looks=describe_looks, megabytes=lambda size: f"{size / 1e6:,.1f}", percent=_percent, size=_size,
    )  # fmt: skip
    environment.globals.update(figure_names=OVERALL, placed=_PICTURES, zip=zip)
    return environment


def _number(value: float | None) -> str:
    # A calibration intercept that nothing holds is in the thousands.
    return "–" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.2g}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}\N{NO-BREAK SPACE}%"


def _bound(figure: Figure, name: str) -> str:
    return "–" if figure.bound is None else f"{'≤' if name in ERRORS else '≥'} {figure.bound:.3f}"


def _of_hundred(figure: Figure) -> str:
    """Return a share as a number of 100 with its interval."""
    return _hundred(figure.value, figure.low, figure.high)


def _rest_of_hundred(figure: Figure) -> str:
    """Return what a share leaves of 100."""
    rest = [None if value is None else 1 - value for value in (figure.value, figure.high, figure.low)]
    return _hundred(*rest)


def _hundred(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    interval = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * value:.0f}{interval}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _size(png: bytes) -> tuple[int, int]:
    """Return width and height in pixels, which the header of a PNG begins with (PNG specification, 11.2.1)."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
