"""The index of an evidence archive: which file supports which item of which checklist, and what is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from medvision.documents.checklists import Answer, Checklist, Lack, State
from medvision.documents.pages import (
    Block,
    Bullets,
    Cell,
    Code,
    Decision,
    Gap,
    Grid,
    KeyFigure,
    Link,
    Mark,
    Page,
    Section,
    Text,
    Value,
)

_MARKS: dict[State, Mark] = {
    "supported": Mark("supported", "passed"),
    "missing": Mark("missing", "failed"),
    "yours": Mark("yours to write", "insufficient_evidence"),
}
# What each file is, by the beginning of its path; the longest that fits counts.
_FILES = {
    "data/audit.json": "what the audit of the dataset found, and what was done; without names of files",
    "data/images.csv": "each image: keyed hash, patient key, class, side, hash of its pixels; without names of files",
    "data/normalization_stats.json": "mean and standard deviation of the train pixels",
    "environment/packages.txt": "packages that the model was trained with",
    "environment/requirements.lock": "pinned versions of the project",
    "environment/sbom.cdx.json": "the same packages as a software bill of materials, CycloneDX, with licences",
    "keys/": "a public key, by which signatures in here are checked",
    "ledger/": "the ledger of the registered model, whole: acts, accounts, reasons, hashes, signatures",
    "model_card.": "the model card, with what people have stated since it was registered",
    "package/": "what the model is, beside its weights: their SHA-256 stands in it",
    "reports/evaluation_details.json": "calibration, thresholds, abstention, subgroups and more, on test; not signed",
    "reports/evaluation_metrics.json": "all figures with intervals, on test; the signed verdict has its fingerprint",
    "reports/evaluation_report.html": "the evaluation report for people; not signed",
    "reports/medical_validation.json": "the verdict with every rule and reason",
    "reports/model_card_as_registered.html": "the model card as it was when the version was registered; not signed",
    "training/config": "settings of a training run, without folders and servers",
    "training/history": "loss and figures of each epoch of a training run",
    "training/source.json": "commit of the code, and the runs that trained",
    "verdicts/": "a signed verdict, a DSSE envelope",
    "version.json": "the version in the registry: number, alias, stage and tags",
}
_WIDTHS = (6, 24, 13, 28, 29)
_LEFT_OUT = (
    "The weights: their SHA-256 stands in package/package.json, and the registry has them.",
    "Images, and the scores of single images. The evaluation report shows images of mistakes if tracking.share_images "
    "was on when it was made: look at it before the archive is passed on.",
    "Names of files and of patients. Images and patients have keyed hashes in their place; the key stays in the "
    "project. The hash of an image's pixels lets whoever has the image find it in the list.",
    "Folders, servers and machines. Accounts stand in the ledger alone, since promotions and approvals are theirs; "
    "reasons stand there as people wrote them.",
)


def describe_index(
    name: str,
    version: str,
    registered_on: str,
    files: Mapping[str, bytes],
    checklists: Sequence[Checklist],
    problems: Sequence[str],
) -> Page:
    """Return the index as a page."""
    return Page(
        what="Evidence",
        title=f"{name} {version}",
        decision=_decide(problems),
        facts=(("Registered", registered_on), ("Files", str(len(files))), ("Checklists", str(len(checklists)))),
        figures=tuple(_figure(checklist) for checklist in checklists),
        sections=(
            Section("how-to-read", "How to read this", _how_to_read()),
            Section("missing", "What is missing", _missing(checklists)),
            *(Section(checklist.name, checklist.title, _checklist(checklist)) for checklist in checklists),
            Section("files", "Files", _files(files)),
            Section("left-out", "What is not in here", (Bullets(_LEFT_OUT),)),
        ),
    )


def index_record(name: str, version: str, checklists: Sequence[Checklist], problems: Sequence[str]) -> bytes:
    """Return the index as JSON, for machines."""
    record: dict[str, Any] = {"name": name, "version": version, "problems": list(problems)}
    record["checklists"] = [asdict(checklist) for checklist in checklists]
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def _decide(problems: Sequence[str]) -> Decision:
    if problems:
        return Decision("failed", "Not everything in here holds", " ".join(problems))
    return Decision(
        "", "Evidence for a submission, and no more", "It supports what people write and sign. It decides nothing."
    )


def _figure(checklist: Checklist) -> KeyFigure:
    supported, n = checklist.count("supported"), len(checklist.answers)
    note = f"{checklist.count('missing')} missing, {checklist.count('yours')} yours to write"
    return KeyFigure(checklist.title, Value(f"{supported} of {n}", "supported"), note)


def _how_to_read() -> tuple[Block, ...]:
    states = Bullets(
        (
            "Supported: the files named hold what the item asks for. Whether they answer it well is for you to judge.",
            "Missing: a record could be here, and is not; the index says what makes it.",
            "Yours to write: only people can say it, in the settings (card) or the study; files that help are named.",
        )
    )
    check = "Every file is listed with its SHA-256 below; to check all of them: sha256sum --check SHA256SUMS"
    signed = (
        "Signed are the verdicts and the ledger. A verdict has the fingerprint of the figures in "
        "reports/evaluation_metrics.json, and of the package. The HTML reports and the details of the evaluation are "
        "covered by no signature: where they differ from the figures, the figures count."
    )
    return (states, Text(signed), Text(check))


def _missing(checklists: Sequence[Checklist]) -> tuple[Block, ...]:
    needed: dict[Lack, list[str]] = {}
    for checklist in checklists:
        for answer in checklist.answers:
            for lack in answer.missing:
                needed.setdefault(lack, []).append(f"{checklist.title} {answer.id}")
    if not needed:
        return (Text("Nothing that the settings or the records could hold is missing."),)
    # What a command makes comes first.
    ordered = sorted(needed.items(), key=lambda found: (found[0].person, found[0].get, found[0].says))
    rows = tuple((lack.says, Gap(lack.get), ", ".join(items)) for lack, items in ordered)
    header = ("what is missing", "what to do", "items that need it")
    return (Grid("Records and statements that are not there", header, rows, texts=header[1:], widths=(30, 35, 35)),)


def _checklist(checklist: Checklist) -> tuple[Block, ...]:
    header = ("item", "asks for", "state", "where it stands", "what is open")
    tables = [
        Grid(title, header, tuple(_row(answer) for answer in answers), texts=header[1:], widths=_WIDTHS)
        for title, answers in groupby(checklist.answers, key=lambda answer: answer.section)
    ]
    return (Text(f"{checklist.what}. {checklist.source}"), *tables)


def _row(answer: Answer) -> tuple[Cell, ...]:
    where = tuple(Link(support.says, support.show) for support in answer.where)
    open_: list[str | Gap] = [Gap(f"{lack.says}: {lack.get}") for lack in answer.missing]
    open_ += [f"To be written by you: {answer.write}"] if answer.write else []
    return (answer.id, answer.text, _MARKS[answer.state], where or "–", tuple(open_) or "–")


def _files(files: Mapping[str, bytes]) -> tuple[Block, ...]:
    rows = tuple(
        (Link(name, name), _describe(name), Code(hashlib.sha256(files[name]).hexdigest())) for name in sorted(files)
    )
    header = ("file", "what it is", "SHA-256")
    return (Grid("Files of this archive, beside its index", header, rows, texts=header[1:], widths=(28, 36, 36)),)


def _describe(name: str) -> str:
    fitting = [beginning for beginning in _FILES if name.startswith(beginning)]
    return _FILES[max(fitting, key=len)] if fitting else ""
