"""The model card: what a model is, for what, how good, on whom, and what is not known of it.

It is made of records only: what no record and no setting says is named as missing, with what would say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medvision.data.lineage import SideSize, without_names
from medvision.documents.card_figures import key_figures
from medvision.documents.card_sections import CardRecords, describe_sections
from medvision.documents.pages import Decision, Page, Section, render_html, render_markdown
from medvision.files import write_text
from medvision.models.licences import StartingWeights
from medvision.records import Audit, Verdict, record_fingerprint, save_record

CARD_MARKDOWN, CARD_HTML, CARD_RECORD = "model_card.md", "model_card.html", "model_card.json"

_DECISIONS = {
    "passed": ("Passed medical validation", "It met every rule of policy {policy} on images that it had never seen"),
    "failed": (
        "Did not pass medical validation",
        "It must not be used for patients. It was held against policy {policy}",
    ),
    "insufficient_evidence": (
        "Too little evidence",
        "It must not be used for patients until there are more test cases. It was held against policy {policy}",
    ),
}


@dataclass(frozen=True)
class CardRecord:
    """What of a card stands in no other file of the model: for machines, and for the evidence."""

    name: str
    version: str | None
    made_on: str
    package_digest: str
    statements: dict[str, str | None]
    audit: Audit | None
    sizes: tuple[SideSize, ...]
    weights: tuple[StartingWeights, ...]


def write_card(folder: Path, records: CardRecords) -> tuple[Path, ...]:
    """Write model_card.md, model_card.html and model_card.json into a folder; return their paths."""
    page, audit = describe_card(records), records.audit and without_names(records.audit)
    record = CardRecord(
        name=records.package.name,
        version=records.version,
        made_on=records.made_on,
        package_digest=record_fingerprint(records.package),
        statements=records.statements.model_dump(),
        audit=audit,
        sizes=records.sizes,
        weights=records.weights,
    )
    write_text(folder / CARD_MARKDOWN, render_markdown(page))
    write_text(folder / CARD_HTML, render_html(page))
    save_record(record, folder / CARD_RECORD)
    return folder / CARD_MARKDOWN, folder / CARD_HTML, folder / CARD_RECORD


def describe_card(records: CardRecords) -> Page:
    """Return the card as a page."""
    info, evaluation = records.package, records.evaluation
    return Page(
        what="Model card",
        title=f"{info.name} {records.version}" if records.version else info.name,
        decision=_decide(records.verdict),
        facts=(
            ("Dataset", info.dataset),
            ("Classes", str(len(info.classes))),
            ("Test images", f"{evaluation.n:,}" if evaluation else "none"),
            (
                "Patients",
                "unknown" if evaluation is None or evaluation.n_patients is None else f"{evaluation.n_patients:,}",
            ),
            ("Date", records.made_on),
        ),
        figures=key_figures(evaluation, records.details) if evaluation else (),
        sections=tuple(
            Section(title.lower().replace(" ", "-"), title, tuple(block for block in blocks if block))
            for title, blocks in describe_sections(records)
        ),
    )


def _decide(verdict: Verdict | None) -> Decision:
    if verdict is None:
        return Decision("failed", "Not validated", "There is no verdict on it. It must not be used for patients.")
    title, text = _DECISIONS[verdict.state]
    tail = f". Judged on {verdict.made_at[:10]}; grade: {verdict.grade}."
    return Decision(verdict.state, title, text.format(policy=verdict.policy) + tail)
