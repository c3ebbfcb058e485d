"""The dataset of a step: its manifest, split and audit, made or found again, and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.console import say

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.data.manifest import Manifest
    from medvision.data.split import Split
    from medvision.records import Audit
    from medvision.tracking.recorder import Recorder


@dataclass(frozen=True)
class SplitDataset:
    """A dataset that is ready to be trained and tested on."""

    manifest: Manifest
    split: Split
    audit: Audit


def prepare_dataset(config: Config) -> SplitDataset:
    """Read, split and audit the dataset, and save the records; unreadable images stop it before anything is trained.

    What a deep audit of the same images has found counts here, too: copies are kept on one side of the split.
    """
    from medvision.auditing.deep import load_deep
    from medvision.data.audit import add_deep, audit
    from medvision.data.manifest import check_rejected, load_or_build_manifest
    from medvision.data.split import save_split

    manifest = load_or_build_manifest(config)
    check_rejected(manifest, config.dataset.max_rejected_fraction)
    manifest, split = _split(manifest, config)
    save_split(split, manifest, config.dataset_dir)
    record = audit(config.dataset_name, manifest, split)
    deep = load_deep(config.dataset_dir, manifest)
    if deep is not None:
        record = add_deep(record, deep)
    save_audit(record, config)
    return SplitDataset(manifest, split, record)


def _split(manifest: Manifest, config: Config) -> tuple[Manifest, Split]:
    """Return the manifest with the copies that are known joined, and its split.

    Copies that were found after the first look at the test set do not deal it anew: it stays as it was locked, and they
    are left out of train and val.
    """
    from medvision.data.duplicates import join_pairs, load_pairs
    from medvision.data.split import keep_sides, make_split
    from medvision.validation.test_ledger import fingerprint_test_set

    pairs = load_pairs(manifest, config.dataset_dir)
    if pairs is None or pairs.empty:
        return manifest, make_split(manifest, config.dataset)
    joined = join_pairs(manifest, pairs)
    split, locked = make_split(joined, config.dataset), _locked_test_set(config)
    if locked in (None, fingerprint_test_set(joined, split)):
        return joined, split
    for last in reversed(range(pairs.examination.max())):
        known = join_pairs(manifest, pairs[pairs.examination <= last]) if last else manifest
        earlier = make_split(known, config.dataset)
        if fingerprint_test_set(manifest, earlier) == locked:
            return joined, keep_sides(earlier, joined)
    return joined, split


def _locked_test_set(config: Config) -> str | None:
    from medvision.errors import LedgerBroken
    from medvision.validation.test_ledger import locked_test_set

    try:
        return locked_test_set(config.dataset_dir)
    except LedgerBroken:
        # What is wrong with the ledger stops whoever opens the test set.
        return None


def save_audit(record: Audit, config: Config) -> None:
    """Write an audit for machines and for people."""
    from medvision.data.audit import AUDIT_FILE, AUDIT_TEXT, render_text
    from medvision.files import write_text
    from medvision.records import save_record

    save_record(record, config.dataset_dir / AUDIT_FILE)
    write_text(config.dataset_dir / AUDIT_TEXT, render_text(record))


def record_dataset(dataset: SplitDataset, config: Config, recorder: Recorder, *, context: str) -> None:
    """Record fingerprints, counts and findings; file names stay here, since they may name patients."""
    from medvision.data.audit import AUDIT_FILE
    from medvision.data.lineage import without_names
    from medvision.records import save_record

    audit = dataset.audit
    recorder.dataset(
        audit.dataset,
        digest=audit.split_fingerprint[:32],
        source=f"medvision:{audit.manifest_fingerprint[:32]}",
        profile={"num_rows": audit.n_images, "classes": list(dataset.manifest.classes), **audit.split_counts},
        context=context,
    )
    recorder.tags(
        {
            "medvision.dataset": audit.dataset,
            "medvision.manifest_fingerprint": audit.manifest_fingerprint,
            "medvision.split_fingerprint": audit.split_fingerprint,
        }
    )
    recorder.params({f"audit.{finding.name}": f"{finding.count} of {finding.total}" for finding in audit.findings})
    shareable = config.dataset_dir / "shareable" / AUDIT_FILE
    save_record(without_names(audit), shareable)
    recorder.artifact(shareable, folder="data")


def say_dataset(dataset: SplitDataset) -> None:
    """Print the sides of the split, and each finding in a line."""
    audit = dataset.audit
    patients = f", {audit.n_patients:,} patients" if audit.n_patients is not None else ", patients unknown"
    sides = ", ".join(f"{side} {sum(counts.values()):,}" for side, counts in audit.split_counts.items())
    say(f"Dataset {audit.dataset}: {audit.n_images:,} images{patients}; {sides}, left out {audit.n_dropped:,}")
    for finding in audit.findings:
        say(f"  [{finding.severity}] {finding.message} {finding.action}")
