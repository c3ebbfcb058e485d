"""The summary of an adaptation: what a dataset is, what is wrong with it, and the recipe that it begins with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medvision.data.recipe import Proposal
from medvision.documents.pages import Block, Bullets, Code, Decision, Grid, Page, Section, Text, render_markdown
from medvision.records import Audit

SUMMARY = "adaptation_summary.md"


@dataclass(frozen=True)
class Adaptation:
    """What came of bringing a dataset in; nothing in it names a file of the dataset.

    ``kept``: settings of a file that a person has changed, where they differ from the recipe. ``suggestions``: how
    patients might be told apart, with the option that would do it. ``command``: what to run next.
    """

    dataset: str
    settings_file: str
    labels_from: str
    window: str
    audit: Audit
    recipe: tuple[Proposal, ...]
    kept: dict[str, Any]
    suggestions: tuple[tuple[str, str], ...]
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
        ("settings", adaptation.settings_file),
    )
    counts = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((len(audit.findings), "finding"), (n_leaks, "leak"))]
    title = f"{counts[0]}, {counts[1]} among them." if audit.findings else "Nothing was found."
    page = Page("Adaptation", adaptation.dataset, Decision("", title, ""), facts, (), tuple(_sections(adaptation)))
    return render_markdown(page)


def _sections(adaptation: Adaptation) -> Iterator[Section]:
    audit = adaptation.audit
    classes = sorted({name for counts in audit.split_counts.values() for name in counts})
    rows = [
        (side, *(f"{counts.get(name, 0):,}" for name in classes), f"{sum(counts.values()):,}")
        for side, counts in audit.split_counts.items()
    ]
    note = f"Left out of all sides: {audit.n_dropped:,} images."
    yield Section("split", "Split", (Grid("Images", ("side", *classes, "all"), tuple(rows), note=note),))
    found = tuple(
        f"[{finding.severity}] {finding.message} {finding.effect} {finding.action}" for finding in audit.findings
    )
    yield Section("findings", "What was found", (Bullets(found),) if found else (Text("Nothing."),))
    if adaptation.suggestions:
        yield Section("patients", "Patients", tuple(_suggestions(adaptation)))
    yield Section("recipe", "Recipe", tuple(_recipe(adaptation)))
    yield Section("next", "Next", (Text(Code(adaptation.command)),))


def _suggestions(adaptation: Adaptation) -> Iterator[Text]:
    for described, option in adaptation.suggestions:
        yield Text(f"{described} To apply it, run adapt again with this beside its other options:")
        yield Text(Code(option))


def _recipe(adaptation: Adaptation) -> Iterator[Block]:
    proposed = tuple((Code(each.setting), str(each.value), each.reason) for each in adaptation.recipe if each.reason)
    yield Grid("A first recipe", ("setting", "proposed", "reason"), proposed, texts=("reason",))
    if adaptation.kept:
        asked = {each.setting: each.value for each in adaptation.recipe}
        kept = tuple((Code(key), str(value), str(asked[key])) for key, value in adaptation.kept.items())
        note = "The file was changed by hand: it was kept, and it is what holds."
        yield Grid("Where the file differs", ("setting", "the file has", "given or proposed"), kept, note=note)
