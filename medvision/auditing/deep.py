"""The deep audit: every image is looked at, and compared with every other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medvision.auditing.embed import Embeddings, embed_images, weights_at_hand
from medvision.auditing.labels import find_label_doubts
from medvision.auditing.near_duplicates import find_near_duplicates
from medvision.auditing.outliers import find_outliers
from medvision.auditing.shortcuts import THUMBNAIL_TRAIT, measure_shortcuts
from medvision.auditing.traits import Traits, load_or_measure_traits
from medvision.config import Config
from medvision.data.duplicates import add_pairs, join_pairs, load_pairs, save_pairs
from medvision.data.manifest import Manifest
from medvision.errors import DataInvalid
from medvision.files import fingerprint
from medvision.records import DeepAudit, Finding, Shortcut, load_record, save_record

DEEP_FILE = "deep_audit.json"

# Raised whenever the same images would give other findings.
_VERSION = 3
_EXAMPLES = 5


def load_or_examine(manifest: Manifest, config: Config) -> DeepAudit:
    """Return the deep audit of a manifest: the saved one of the same images and settings, else a new one, saved.

    Beside it the pairs of images that show one picture are saved, which every later split keeps together; those of an
    earlier examination, with another model, stay.
    """
    folder, settings = config.dataset_dir, _settings(manifest, config)
    saved = load_deep(folder, manifest)
    if saved is not None and saved.settings == settings:
        return saved
    traits = load_or_measure_traits(manifest, folder, workers=config.performance.workers)
    embeddings = embed_images(manifest, traits.thumbnails, config)
    is_first = ~manifest.rows.pixel_hash.duplicated().to_numpy()
    directions = embeddings.directions if embeddings.is_learned else None
    found = find_near_duplicates(traits.thumbnails, is_first & ~traits.is_flat, directions)
    pairs = add_pairs(load_pairs(manifest, folder), found)
    deep = _examine(join_pairs(manifest, pairs), traits, embeddings, pairs, settings)
    save_pairs(pairs, manifest, folder)
    save_record(deep, folder / DEEP_FILE)
    return deep


def load_deep(folder: Path, manifest: Manifest) -> DeepAudit | None:
    """Return the saved deep audit, if it is of these very images and its pairs are there."""
    try:
        deep = load_record(DeepAudit, folder / DEEP_FILE)
    except DataInvalid:
        return None
    is_of_these = deep.manifest_fingerprint == manifest.fingerprint and load_pairs(manifest, folder) is not None
    return deep if is_of_these else None


def _settings(manifest: Manifest, config: Config) -> str:
    # The listing tells of files that were written anew with the same pixels: format and size are traits, too.
    made_of = [manifest.listing, config.training.model, *weights_at_hand(config), config.transform.image_size]
    return fingerprint([_VERSION, *made_of])


def _examine(
    manifest: Manifest, traits: Traits, embeddings: Embeddings, pairs: pd.DataFrame, settings: str
) -> DeepAudit:
    rows = manifest.rows
    labels, groups = rows.label.to_numpy(), rows.group.to_numpy()
    shortcuts = measure_shortcuts(traits, labels, groups)
    found = [
        *_copies(manifest, pairs),
        _flat(manifest, traits),
        _outliers(manifest, embeddings),
        *_label_doubts(manifest, embeddings),
        *(_shortcut(shortcut, manifest) for shortcut in shortcuts if shortcut.is_far_above_chance),
    ]
    findings = tuple(finding for finding in found if finding.count)
    return DeepAudit(manifest.fingerprint, settings, embeddings.made_by, shortcuts, findings)


def _copies(manifest: Manifest, pairs: pd.DataFrame) -> list[Finding]:
    labels, total = manifest.rows.label.to_numpy(), len(manifest.rows)
    copies = np.unique(pairs[["i", "j"]].to_numpy(int))
    conflicting = pairs[labels[pairs.i] != labels[pairs.j]]
    in_conflict = np.unique(conflicting[["i", "j"]].to_numpy(int))
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in pairs.kind.value_counts().items())
    return [
        Finding(
            name="near_duplicates",
            severity="note",
            count=len(copies),
            total=total,
            message=f"{len(copies):,} of {total:,} images show the same picture as another ({kinds} pairs).",
            action="They are kept on one side of the split, and of a cross-validation.",
            examples=_ids(manifest, pairs[["i", "j"]].to_numpy(int).ravel()),
            effect="Copies count as cases that they are not.",
        ),
        Finding(
            name="conflicting_copies",
            severity="warning",
            count=len(in_conflict),
            total=total,
            message=f"{len(in_conflict)} images show the same picture as an image of another class.",
            action="Find out which label is right: open audit_report.html.",
            examples=_ids(manifest, conflicting[["i", "j"]].to_numpy(int).ravel()),
            effect="One of the two labels is wrong, and no model can be right on both.",
        ),
    ]


def _flat(manifest: Manifest, traits: Traits) -> Finding:
    rows = np.flatnonzero(traits.is_flat)
    return Finding(
        name="flat",
        severity="warning",
        count=len(rows),
        total=len(manifest.rows),
        message=f"{len(rows)} images are of one gray level, or nearly so.",
        action="Remove or replace them.",
        examples=_ids(manifest, rows),
        effect="Nothing can be learned from them, and what is said of them is guessed.",
    )


def _outliers(manifest: Manifest, embeddings: Embeddings) -> Finding:
    rows = find_outliers(embeddings.points, embeddings.residuals)
    return Finding(
        name="outliers",
        severity="warning",
        count=len(rows),
        total=len(manifest.rows),
        message=f"{len(rows)} of {len(manifest.rows):,} images are unlike all others, by {embeddings.made_by}.",
        action="Look at them, and remove what is of another kind.",
        examples=_ids(manifest, rows),
        effect="An image of another kind says nothing of the classes, and its answer nothing of the model.",
    )


def _label_doubts(manifest: Manifest, embeddings: Embeddings) -> list[Finding]:
    rows = manifest.rows
    doubts = find_label_doubts(embeddings.points, rows.label.to_numpy(), rows.group.to_numpy())
    if doubts is None:
        return []
    return [
        Finding(
            name="label_doubts",
            severity="note",
            count=len(doubts.rows),
            total=len(rows),
            message=f"{len(doubts.rows)} of {len(rows):,} images look like another class than their label says, to a "
            f"classifier that is right on {doubts.accuracy:.0%} of a class (by {embeddings.made_by}).",
            action="Have an expert look at them, the first ones first. Nothing was changed.",
            examples=_ids(manifest, doubts.rows),
            effect="Wrong labels in train mislead a model, and in test they lower every figure.",
        )
    ]


def _shortcut(shortcut: Shortcut, manifest: Manifest) -> Finding:
    is_note = shortcut.trait == THUMBNAIL_TRAIT
    told = (
        f"The {shortcut.trait} alone tells the classes with a balanced accuracy of {shortcut.accuracy:.2f} "
        f"(95 % CI {shortcut.low:.2f} to {shortcut.high:.2f}; guessing {shortcut.chance:.2f})."
    )
    return Finding(
        name=f"shortcut_{shortcut.trait.replace(' ', '_')}",
        severity="note" if is_note else "warning",
        count=len(manifest.rows),
        total=len(manifest.rows),
        message=told,
        action="Hold any model against this figure: what it has above it is what it may have learned of medicine."
        if is_note
        else "Test on images of another source, or make the classes alike in it before training.",
        effect="Position, brightness or coarse shape are enough: that can be medicine, or how the images were made."
        if is_note
        else "That is no medicine. A model may learn it instead, and fail where images are made in another way.",
    )


def _ids(manifest: Manifest, rows: np.ndarray) -> tuple[str, ...]:
    first = list(dict.fromkeys(np.asarray(rows).tolist()))[:_EXAMPLES]
    return tuple(manifest.rows.image_id.iloc[first])
