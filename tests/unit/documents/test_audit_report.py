"""audit_report.html: one file that says what was found, shows the images, and believes no text."""

import re

import numpy as np
import pytest

from medvision.documents.audit_report import AuditReport, Gallery, Shown, encode_png, render_audit
from medvision.records import Audit, DeepAudit, Finding, Shortcut

ATTACK = "<script>alert(1)</script>"


def report_with(*severities, name="phantom", galleries=()):
    findings = tuple(
        Finding(f"f{i}", s, 1, 10, f"{s} {name}", "do this", (name,), "harm") for i, s in enumerate(severities)
    )
    counts = {"train": {name: 7}, "val": {}, "test": {name: 3}}
    audit = Audit(name, "m" * 64, "s" * 64, 10, None, counts, 2, findings, True)
    deep = DeepAudit("m" * 64, "x", "descriptor", (Shortcut("border", 0.8, 0.7, 0.9, 0.5, True),), ())
    return render_audit(AuditReport(audit, deep, (name,), galleries))


@pytest.mark.parametrize(
    ("severities", "said"),
    [((), "Clean"), (("note",), "Clean"), (("warning",), "No leak"), (("leak", "note"), "leaks")],
)
def test_verdict(severities, said):
    """The first thing that it says is whether the dataset is clean, leaks, or has warnings."""
    assert said in re.search(r'class="verdict">(.*?)</div>', report_with(*severities), re.DOTALL)[1]


def test_everything_is_in_it():
    """Findings with effect and action, shortcuts with their intervals, and the counts of classes are told."""
    html = report_with("leak")
    for text in ("leak phantom", "harm", "do this", "border", "0.700 to 0.900", "> 7<", "descriptor"):
        assert text in html


def test_pictures_are_within():
    """Images stand in the file itself, each with its id; nothing is fetched."""
    shown = Shown(encode_png(np.zeros((8, 8, 3), np.uint8)), "abc123", "glioma, test")
    html = report_with(galleries=(Gallery("Copies", ((shown, shown, "copy, likeness 0.97"),)),))
    assert html.count('src="data:image/png;base64,') == 2 and "abc123" in html and "likeness 0.97" in html
    assert "http://" not in html and "https://" not in html


def test_texts_are_escaped():
    """A name from the data never becomes HTML."""
    assert ATTACK not in report_with("leak", name=ATTACK)
