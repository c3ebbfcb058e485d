"""What a model card says of the images: how many, of whom, what was wrong with them, and what was done about it."""

from __future__ import annotations

from medvision.data.lineage import SideSize
from medvision.documents.pages import Block, Bullets, Gap, Grid, Inline, Text
from medvision.evaluation.wording import describe_looks, rough_classes
from medvision.records import SPLITS, Audit, Details, Evaluation, PackageInfo


def describe_data(evaluation: Evaluation | None, details: Details | None) -> list[Block]:
    """Return what there is to say of the images that the model was tested on."""
    if evaluation is None:
        return [Text(Gap("The model was not evaluated; run: medvision evaluate"))]
    patients = "unknown patients" if evaluation.n_patients is None else f"{evaluation.n_patients:,} patients"
    said: list[Inline] = [f"{evaluation.n:,} images of {patients} of {evaluation.dataset}, kept apart from training."]
    if details is not None:
        said.append(f"{describe_looks(details.looks)} Whoever chooses among models by it makes its figures too good.")
    said += [f"Only {n} with {name}: its figures are rough." for name, n in rough_classes(evaluation)]
    return [Bullets(tuple(said))]


def describe_training_data(info: PackageInfo, audit: Audit | None, sizes: tuple[SideSize, ...]) -> list[Block]:
    """Return the sizes of the sides by class, and what the audit found in the split that the model learned from."""
    if audit is None or audit.split_fingerprint != info.split_fingerprint:
        audit = None
    return [_sizes(info, audit, sizes), *_findings(audit)]


def _sizes(info: PackageInfo, audit: Audit | None, sizes: tuple[SideSize, ...]) -> Block:
    title, note = (
        "Images by class and side of the split",
        "The model learned from train; val chose its epoch and thresholds.",
    )
    if sizes:
        rows = [(name, *(_size(found) for found in sizes if found.class_name == name)) for name in info.classes]
        knows = any(found.n_patients is not None for found in sizes)
        return Grid(title, ("class", *SPLITS), tuple(rows), note=note + (" In brackets: patients." if knows else ""))
    if audit is not None:
        counts = [(name, *(f"{audit.split_counts[side].get(name, 0):,}" for side in SPLITS)) for name in info.classes]
        return Grid(title, ("class", *SPLITS), tuple(counts), note=note)
    return Text(Gap("How many images each side of the split has is not known here: its tables are of another split"))


def _size(found: SideSize) -> str:
    return f"{found.n_images:,}" + ("" if found.n_patients is None else f" ({found.n_patients:,})")


def _findings(audit: Audit | None) -> list[Block]:
    if audit is None:
        return [Text(Gap("There is no audit of the split that the model learned from; run: medvision audit"))]
    patients = "patients unknown" if audit.n_patients is None else f"{audit.n_patients:,} patients"
    what = f"The dataset has {audit.n_images:,} images, {patients}; {audit.n_dropped:,} were left out."
    if not audit.findings:
        return [
            Text(
                f"{what} The audit looked for leaks between the sides, repeats and conflicting labels, and found none."
            )
        ]
    rows = tuple((each.severity, each.message, each.action) for each in audit.findings)
    header = ("kind", "what the audit found", "what was done")
    return [Text(what), Grid("Findings of the audit", header, rows, texts=header[1:])]
