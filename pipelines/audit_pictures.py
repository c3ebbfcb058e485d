"""Write audit_report.html: the findings of an audit, and the images that they are about side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from medvision.config import Config
    from medvision.data.manifest import Manifest
    from medvision.documents.audit_report import Gallery, Shown
    from medvision.records import DeepAudit
    from medvision.tracking.recorder import Recorder
    from pipelines.dataset import SplitDataset

REPORT_FILE = "audit_report.html"

_PAIRS = 20
_SIDE = 96
# The findings whose examples are worth looking at one by one.
_LOOKED_AT = ("label_doubts", "outliers", "flat", "conflicting_labels")


def write_report(dataset: SplitDataset, deep: DeepAudit, config: Config, recorder: Recorder) -> None:
    """Render the report, and record it; without images of patients unless ``tracking.share_images`` allows them."""
    from medvision.data.lineage import without_names
    from medvision.documents.audit_report import AuditReport, render_audit
    from medvision.files import write_text

    report = AuditReport(dataset.audit, deep, dataset.manifest.classes, _galleries(dataset, config))
    path = config.dataset_dir / REPORT_FILE
    write_text(path, render_audit(report))
    if not config.tracking.share_images:
        path = config.dataset_dir / "shareable" / REPORT_FILE
        write_text(path, render_audit(AuditReport(without_names(dataset.audit), deep, dataset.manifest.classes)))
    recorder.artifact(path, folder="data")


def _galleries(dataset: SplitDataset, config: Config) -> tuple[Gallery, ...]:
    from medvision.data.duplicates import load_pairs
    from medvision.documents.audit_report import Gallery

    manifest = dataset.manifest
    pairs = load_pairs(manifest, config.dataset_dir)
    galleries = [] if pairs is None else _pair_galleries(pairs, manifest)
    galleries += [
        Gallery(finding.message, tuple((_show(manifest, row),) for row in _rows(manifest, finding.examples)))
        for finding in dataset.audit.findings
        if finding.name in _LOOKED_AT
    ]
    return tuple(gallery for gallery in galleries if gallery.entries)


def _pair_galleries(pairs: pd.DataFrame, manifest: Manifest) -> list[Gallery]:
    from medvision.documents.audit_report import Gallery

    rows = manifest.rows
    given, labels = rows.given_split.to_numpy(), rows.label.to_numpy()
    across_sides = given[pairs.i] != given[pairs.j]
    across_classes = labels[pairs.i] != labels[pairs.j]
    parts = {
        "Copies across the sides of the given split": across_sides,
        "Copies across classes": across_classes,
        "Copies on one side, of one class": ~across_sides & ~across_classes,
    }
    return [
        Gallery(
            _title(name, int(which.sum())),
            tuple(
                (_show(manifest, pair.i), _show(manifest, pair.j), f"{pair.kind}, likeness {pair.likeness:.3f}")
                # The least alike first: the ones that can be doubted.
                for pair in pairs[which].sort_values("likeness").head(_PAIRS).itertuples()
            ),
        )
        for name, which in parts.items()
    ]


def _title(name: str, n: int) -> str:
    return f"{name}: {n:,}" + (f", of which the {_PAIRS} least alike are shown" if n > _PAIRS else "")


def _show(manifest: Manifest, row: int) -> Shown:
    from medvision.data.decode import decode_file, fit_to_square
    from medvision.documents.audit_report import Shown, encode_png

    image = manifest.rows.iloc[row]
    pixels = fit_to_square(decode_file(manifest.source(row)), _SIDE, 3)
    told = [manifest.classes[image.label], *([image.given_split] if image.given_split else [])]
    return Shown(encode_png(pixels), image.image_id, ", ".join(told))


def _rows(manifest: Manifest, examples: tuple[str, ...]) -> list[int]:
    return [int(row) for row in manifest.rows.image_id.isin(examples).to_numpy().nonzero()[0]]
