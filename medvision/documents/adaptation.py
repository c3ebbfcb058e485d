"""The summary of an adaptation: what a dataset is, what is wrong with it, and the recipe that it begins with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medvision.data.recipe import Proposal
from medvision.documents.pages import Bullets, Code, Decision, Grid, Page, Section, Text, render_markdown
from medvision.records import Audit

SUMMARY = "adaptation_summary.md"


@dataclass(frozen=True)
class Adaptation:
    """What came of bringing a dataset in; nothing in it names a file of the dataset.

    ``state``: what became of the settings' file. ``kept``: settings of that file which differ from the recipe.
    ``command``: what to run next.
    """

    dataset: str
    settings_file: str
    state: str
    labels_from: str
    left_out: tuple[tuple[str, int], ...]
    window: str
    audit: Audit
    recipe: tuple[Proposal, ...]
    kept: dict[str, Any]
    suggestions: tuple[str, ...]
    command: str


def render_summary(adaptation: Adaptation) -> str:
    """Return the summary as Markdown."""
    audit = adaptation.audit
    patients = "unknown" if audit.n_patients is None else f"{audit.n_patients:,}"
    n_leaks = sum(finding.severity == "leak" for finding in audit.findings)
    facts = (
        ("images", f"{audit.n_images:,}"),
        ("patients", patients),
        ("labels from", adaptation.labels_from),
        *((("CT window", adaptation.window),) if adaptation.window else ()),
        ("settings", f"{adaptation.settings_file}, {adaptation.state}"),
    )
    title = f"{len(audit.findings)} findings, {n_leaks} of them leaks." if audit.findings else "Nothing was found."
    page = Page("Adaptation", adaptation.dataset, Decision("", title, ""), facts, (), tuple(_sections(adaptation)))
    return render_markdown(page)


def _sections(adaptation: Adaptation) -> Iterator[Section]:
    audit = adaptation.audit
    classes = sorted({name for counts in audit.split_counts.values() for name in counts})
    rows = [
        (side, *(f"{counts.get(name, 0):,}" for name in classes), f"{sum(counts.values()):,}")
        for side, counts in audit.split_counts.items()
    ]
    note = f"Left out: {audit.n_dropped:,} images."
    left_out = "".join(f" {count:,} {reason}." for reason, count in adaptation.left_out)
    yield Section("split", "Split", (Grid("Images", ("side", *classes, "all"), tuple(rows), note=note + left_out),))
    found = tuple(
        f"[{finding.severity}] {finding.message} {finding.effect} {finding.action}" for finding in audit.findings
    )
    yield Section("findings", "What was found", (Bullets(found),) if found else (Text("Nothing."),))
    if adaptation.suggestions:
        yield Section("patients", "Patients", (Bullets(adaptation.suggestions),))
    proposed = tuple(
        (Code(each.setting), str(each.value), each.reason, str(adaptation.kept.get(each.setting, "")))
        for each in adaptation.recipe
        if each.reason
    )
    header = ("setting", "proposed", "reason", "the file has")
    yield Section("recipe", "Recipe", (Grid("A first recipe", header, proposed, texts=("reason",)),))
    yield Section("next", "Next", (Text(Code(adaptation.command)),))
