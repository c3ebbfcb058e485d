"""Whether the evidence is what it says: each check returns what was touched, or None."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from medvision.data.decode import hash_file
from medvision.data.manifest import Manifest
from medvision.data.parallel import map_files
from medvision.data.split import Split
from medvision.evaluation.metrics import evaluate_predictions
from medvision.evaluation.predictions import Predictions
from medvision.records import Evaluation, PackageInfo, Plan, as_dict
from medvision.validation.evidence import Objection

# Images that are scored again. Of an edit of one row in twenty, 128 rows miss all in 1 of 700 cases.
SAMPLE_SIZE = 128
# Scored again on another device: TF32, which GPUs use for convolutions, has 10 bits of mantissa. An edit that is
# smaller changes no call but that of a tie.
SCORE_TOLERANCE = 5e-3
# What a bound rests on is not for the file to say that is judged.
PLAN = Plan()

_AGAIN = "Run: medvision evaluate, then medvision validate"


def recompute(
    predictions: Predictions, info: PackageInfo, *, package_digest: str, predictions_sha256: str
) -> Evaluation:
    """Compute the evaluation of the package at hand from the table of predictions, by the plan of all verdicts."""
    return evaluate_predictions(
        predictions,
        model=info.name,
        dataset=info.dataset,
        package_digest=package_digest,
        split_fingerprint=info.split_fingerprint,
        predictions_sha256=predictions_sha256,
        plan=PLAN,
    )


def check_metrics(stated: Evaluation, recomputed: Evaluation) -> Objection | None:
    """Compare the figures of evaluation_metrics.json with those that the predictions give.

    Of figures that were made by another plan values and counts are compared alone: limits are other draws.
    """
    said, given = as_dict(stated), as_dict(recomputed)
    if stated.plan != recomputed.plan:
        said, given = _without_draws(said), _without_draws(given)
    difference = next(_differences(said, given), None)
    if difference is None:
        return None
    place, one, other = difference
    message = f"evaluation_metrics.json says {place} = {one}, but the predictions give {other}"
    return Objection("metrics", message, _AGAIN)


def check_origin(
    predictions: Predictions,
    info: PackageInfo,
    *,
    package_digest: str,
    test_fingerprint: str,
    split_fingerprint: str,
) -> Objection | None:
    """Tell whether predictions say that they are of this package, which was trained on this split, on this test set."""
    found = {
        "package": (predictions.package_digest[:12] or "none", package_digest[:12]),
        "test set": (predictions.test_fingerprint[:12] or "none", test_fingerprint[:12]),
        "split": (info.split_fingerprint[:12], split_fingerprint[:12]),
        "classes": (", ".join(predictions.classes), ", ".join(info.classes)),
    }
    for what, (said, at_hand) in found.items():
        if said != at_hand:
            message = f"predictions.parquet is of {what} {said}, but the {what} at hand is {at_hand}"
            return Objection(what.replace(" ", "_"), message, _AGAIN)
    return None


def check_rows(predictions: Predictions, manifest: Manifest, split: Split) -> Objection | None:
    """Tell whether the table has every test image once, in order, with its label and its patient."""
    rows = manifest.rows.iloc[split.indices("test")]
    expected = {
        "image_id": list(rows.image_id),
        "patient_key": [key or None for key in rows.patient_key],
        "y_true": rows.label.tolist(),
    }
    found = {
        "image_id": list(predictions.image_ids),
        "patient_key": list(predictions.patient_keys),
        "y_true": predictions.y_true.tolist(),
    }
    if len(found["image_id"]) != len(rows):
        message = f"predictions.parquet has {len(found['image_id'])} rows, but the test set has {len(rows)} images"
        return Objection("predictions", message, _AGAIN)
    for column, values in expected.items():
        wrong = [number for number, value in enumerate(values) if found[column][number] != value]
        if wrong:
            message = f"predictions.parquet: {column} of row {wrong[0]} is not that of the test set"
            return Objection("predictions", message, _AGAIN)
    return None


def check_pixels(manifest: Manifest, split: Split, *, workers: int | None) -> Objection | None:
    """Decode every test image again, and tell whether its pixels are those of the manifest.

    A manifest takes a file for the same whose size and time are; whoever exchanges an image can set both.
    """
    test = split.indices("test")
    sources, rows = manifest.sources(), manifest.rows.iloc[test]
    found = map_files(hash_file, [sources[row] for row in test], workers=workers, description="Reading test images")
    wrong = [number for number, (said, pixels) in enumerate(zip(rows.pixel_hash, found, strict=True)) if said != pixels]
    if not wrong:
        return None
    message = (
        f"{len(wrong)} of {len(rows)} test images have other pixels than when the manifest was made, the first in row "
        f"{wrong[0]}"
    )
    return Objection("test_set", message, "Restore the test set.")


def choose_sample(n: int) -> np.ndarray:
    """Return rows to be scored again, in order; nobody can know them beforehand."""
    return np.sort(np.random.default_rng().choice(n, size=min(n, SAMPLE_SIZE), replace=False))


def check_scores(predictions: Predictions, sample: np.ndarray, y_score: np.ndarray) -> Objection | None:
    """Compare the scores of a sample of rows with those that the package gives now, (len(sample), k)."""
    gaps = np.abs(predictions.y_score[sample] - y_score).max(axis=1)
    # NaN is no small gap.
    wrong = np.flatnonzero(~(gaps <= SCORE_TOLERANCE))
    if not len(wrong):
        return None
    message = (
        f"predictions.parquet: the scores of {len(wrong)} of {len(sample)} images that were scored again are not those "
        f"of the model package, the first in row {sample[wrong[0]]}"
    )
    return Objection("predictions", message, _AGAIN)


def _without_draws(value: Any) -> Any:
    """Return JSON-like values without what a plan decides: the plan itself, and limits and methods of figures."""
    if isinstance(value, dict):
        drawn = ("plan", "low", "high", "bound", "method")
        return {key: _without_draws(each) for key, each in value.items() if key not in drawn}
    return [_without_draws(each) for each in value] if isinstance(value, (list, tuple)) else value


def _differences(said: Any, found: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield place and both values of every difference, in order."""
    if isinstance(said, dict) and isinstance(found, dict):
        for key in {**said, **found}:
            yield from _differences(said.get(key), found.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)) and len(said) == len(found):
        for number, (one, other) in enumerate(zip(said, found, strict=True)):
            name = other.get("name", number) if isinstance(other, dict) else number
            yield from _differences(one, other, f"{place}.{name}")
    elif isinstance(said, float) and isinstance(found, float):
        if not math.isclose(said, found, rel_tol=1e-9, abs_tol=1e-12):
            yield place, said, found
    elif said != found:
        yield place, said, found
