"""audit_report.html: what is wrong with a dataset, with pictures, in the look of the other reports and as one file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvision.evaluation.html_report import make_environment
from medvision.records import SPLITS, Audit, DeepAudit

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Shown:
    """An image of the dataset: its picture as PNG, its image_id, and its class and side."""

    png: bytes
    image_id: str
    told: str


@dataclass(frozen=True)
class Gallery:
    """Images under a title. An entry is one image, or two of them and what joins them."""

    title: str
    entries: tuple[tuple[Shown | str, ...], ...]


@dataclass(frozen=True)
class AuditReport:
    """All that the report tells; without galleries it holds no image."""

    audit: Audit
    deep: DeepAudit
    classes: tuple[str, ...]
    galleries: tuple[Gallery, ...] = ()


def render_audit(report: AuditReport) -> str:
    """Return the report as one HTML page."""
    state, title = _decide(report.audit)
    return make_environment(_TEMPLATES).get_template("audit_report.html").render(
        report=report, audit=report.audit, deep=report.deep, state=state, decision=title, sides=SPLITS,
        most=max((max(counts.values(), default=0) for counts in report.audit.split_counts.values()), default=0) or 1,
    )  # fmt: skip


def encode_png(pixels: np.ndarray) -> bytes:
    """Return pixels, uint8 (h, w, 3), as PNG."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, pixels, format="png")
    return file.getvalue()


def _decide(audit: Audit) -> tuple[str, str]:
    """Return the class of the verdict's box, and its words."""
    counts = {severity: sum(each.severity == severity for each in audit.findings) for severity in ("leak", "warning")}
    if counts["leak"]:
        return "failed", "The given split leaks; what leaked was dealt with"
    if counts["warning"]:
        return "insufficient_evidence", "No leak; there are warnings to look at"
    return "passed", "Clean: no leak and no warning"
