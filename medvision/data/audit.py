"""What is wrong with a dataset: how often, what it does to the figures, and what was done about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from medvision.data.manifest import Manifest
from medvision.data.split import DROPPED, Leak, Split, count_classes, find_conflicting, find_leaks
from medvision.records import SPLITS, Audit, DeepAudit, Finding

AUDIT_FILE = "audit.json"
AUDIT_TEXT = "audit.txt"

_EXAMPLES = 5
# Below one case in five of the most frequent class, accuracy says little about the rarest.
_IMBALANCE = 5.0


def audit(name: str, manifest: Manifest, split: Split) -> Audit:
    """Audit a manifest and the split made from it."""
    rows = manifest.rows
    return Audit(
        dataset=name,
        manifest_fingerprint=manifest.fingerprint,
        split_fingerprint=split.fingerprint,
        n_images=len(rows),
        n_patients=int(rows.patient_key[rows.patient_key != ""].nunique()) if manifest.knows_patients else None,
        split_counts={side: count_classes(split.indices(side), manifest) for side in SPLITS},
        n_dropped=int((split.sides == DROPPED).sum()),
        findings=tuple(finding for finding in _find_all(manifest, split) if finding.count),
    )


def add_deep(record: Audit, deep: DeepAudit) -> Audit:
    """Return an audit with what a look at every image found."""
    return dataclasses.replace(record, findings=record.findings + deep.findings, is_deep=True)


def render_text(record: Audit, names: Mapping[str, str] | None = None) -> str:
    """Return the audit as a text for people.

    Examples are ids of images. On the console ``names``, a path for each id, stand in their place; in a file they must
    not, since they may name patients.
    """
    patients = f" of {record.n_patients:,} patients" if record.n_patients is not None else ", patients unknown"
    lines = [f"Audit of {record.dataset}: {record.n_images:,} images{patients}", ""]
    for side, counts in record.split_counts.items():
        classes = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        lines.append(f"  {side:<6}{sum(counts.values()):>7,}   ({classes})")
    lines.append(f"  left out {record.n_dropped:,}")
    if not record.findings:
        lines += ["", "Nothing found."]
    for finding in record.findings:
        lines += ["", f"[{finding.severity}] {finding.message} {finding.effect}".rstrip(), f"  -> {finding.action}"]
        lines += [f"     {_named(example, names or {})}" for example in finding.examples]
    if not record.is_deep:
        lines += ["", "Not looked for yet: altered copies, outliers, label errors, shortcuts. Run: medvision audit"]
    return "\n".join(lines) + "\n"


def _named(example: str, names: Mapping[str, str]) -> str:
    image_id, colon, reason = example.partition(":")
    return f"{names.get(image_id, image_id)}{colon}{reason}"


def _find_all(manifest: Manifest, split: Split) -> list[Finding]:
    return [
        _not_used(manifest),
        _rejected(manifest),
        _unmatched(manifest),
        *_leaking(manifest, split),
        _repeated(manifest),
        _conflicting(manifest),
        _imbalanced(manifest, split),
    ]


def _not_used(manifest: Manifest) -> Finding:
    count = sum(count for _, count in manifest.left_out)
    return Finding(
        name="not_used",
        severity="note",
        count=count,
        total=count + len(manifest.rows) + len(manifest.rejected),
        message=f"Not used: {', '.join(f'{count:,} {reason}' for reason, count in manifest.left_out)}.",
        action="Make sure that they are meant to be left out.",
    )


def _rejected(manifest: Manifest) -> Finding:
    total = len(manifest.rows) + len(manifest.rejected)
    return Finding(
        name="unreadable",
        severity="warning",
        count=len(manifest.rejected),
        total=total,
        message=f"{len(manifest.rejected)} of {total} files are not readable images.",
        action="They are left out.",
        examples=tuple(f"{image.image_id}: {image.reason}" for image in manifest.rejected[:_EXAMPLES]),
    )


def _unmatched(manifest: Manifest) -> Finding:
    rows, total = manifest.rows, len(manifest.rows)
    return Finding(
        name="patient_unknown",
        severity="warning",
        count=manifest.unmatched,
        total=total,
        message=f"The patient of {manifest.unmatched} of {total} images is not named, by the pattern or the table.",
        action="Each of these images counts as a patient of its own. Mend pattern or table if that is not so.",
        examples=tuple(rows.image_id[rows.patient_key == ""][:_EXAMPLES]) if manifest.unmatched else (),
    )


def _leaking(manifest: Manifest, split: Split) -> list[Finding]:
    rows = manifest.rows
    n_lost = int(((split.sides == DROPPED) & rows.given_split.isin(["train", "val"])).sum())
    # Only a split made anew has val or test rows on another side. Train rows may be dealt to a side that was missing.
    held_out = rows.given_split.isin(["val", "test"]).to_numpy()
    regrouped = bool((held_out & (split.sides != rows.given_split) & (split.sides != DROPPED)).any())
    action = (
        "The whole dataset was split anew." if regrouped else f"{n_lost:,} leaking train and val rows are left out."
    )
    return [_leak(leak, manifest, action) for leak in find_leaks(manifest)]


def _leak(leak: Leak, manifest: Manifest, action: str) -> Finding:
    total = int((manifest.rows.given_split == leak.side).sum())
    what = {
        "patient": f"have their patient in {leak.other}",
        "pixels": f"are pixel-identical to a {leak.other} image",
        "picture": f"are altered copies of a {leak.other} image (compressed, brightened, flipped, cropped or turned)",
    }
    share = f"{len(leak.rows):,} of {total:,} {leak.side} images ({len(leak.rows) / max(1, total):.0%})"
    return Finding(
        name=f"{leak.side}_in_{leak.other}_by_{leak.by}",
        severity="leak",
        count=len(leak.rows),
        total=total,
        message=f"{share} {what[leak.by]}: figures on the given split would be too good.",
        action=action,
        examples=tuple(manifest.rows.image_id.iloc[leak.rows[:_EXAMPLES]]),
    )


def _repeated(manifest: Manifest) -> Finding:
    repeated = np.flatnonzero(manifest.rows.pixel_hash.duplicated())
    return Finding(
        name="repeated",
        severity="note",
        count=len(repeated),
        total=len(manifest.rows),
        message=f"{len(repeated):,} of {len(manifest.rows):,} images repeat the pixels of another.",
        action="Repeats are kept on one side of the split.",
        examples=tuple(manifest.rows.image_id.iloc[repeated[:_EXAMPLES]]),
    )


def _conflicting(manifest: Manifest) -> Finding:
    conflicting = np.flatnonzero(find_conflicting(manifest))
    return Finding(
        name="conflicting_labels",
        severity="warning",
        count=len(conflicting),
        total=len(manifest.rows),
        message=f"{len(conflicting)} images have the same pixels as an image of another class.",
        action="They are left out of train and val. Find out which label is right.",
        examples=tuple(manifest.rows.image_id.iloc[conflicting[:_EXAMPLES]]),
    )


def _imbalanced(manifest: Manifest, split: Split) -> Finding:
    counts = count_classes(split.indices("train"), manifest)
    rarest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    ratio = counts[most] / counts[rarest]
    return Finding(
        name="imbalance",
        severity="note",
        count=counts[rarest] if ratio >= _IMBALANCE else 0,
        total=sum(counts.values()),
        message=f"Class {rarest} has {counts[rarest]:,} training images, {most} {counts[most]:,}: {ratio:.1f} times.",
        action="Look at sensitivity by class, not at accuracy; training.imbalance weighs or samples the classes.",
    )
