"""The records that a model's life is made of, from data to verdict.

Each stage takes the record of the former stage and adds one. A record is frozen, is saved as JSON, and carries the
fingerprints of what it was made from: "which images taught the model that gave this answer?" is a chain of hashes.
Tables (manifest, split, predictions) are Parquet files and live with the code that makes them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medvision.errors import DataInvalid
from medvision.files import fingerprint, read_json, write_json

SPLITS = ("train", "val", "test")

RecordType = TypeVar("RecordType")


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found: how often, what it does to the figures, and what was done about it."""

    name: str
    severity: str
    count: int
    total: int
    message: str
    action: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What is wrong with a dataset, and what was done about it."""

    dataset: str
    manifest_fingerprint: str
    split_fingerprint: str
    n_images: int
    n_patients: int | None
    split_counts: dict[str, dict[str, int]]
    n_dropped: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel over all pixels of the train split, in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_images: int
    n_pixels: int
    split_fingerprint: str


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes a model's input: decoded, converted to ``channels``, resized to a square.

    Normalization happens inside the network, with these values.
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class PackageInfo:
    """All that a prediction needs beside the weights, and where the weights come from."""

    name: str
    dataset: str
    architecture: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    weights_sha256: str
    manifest_fingerprint: str
    split_fingerprint: str
    run_key: str
    best_epoch: int
    best_val_accuracy: float
    medvision_version: str


@dataclass(frozen=True)
class Proportion:
    """A proportion with its 95 % confidence interval."""

    value: float
    successes: int
    n: int
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class against all others; ``auroc`` is None where a class has no case or no counter-case."""

    name: str
    n: int
    sensitivity: Proportion
    specificity: Proportion
    auroc: float | None


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model package on one test split."""

    model: str
    dataset: str
    package_digest: str
    split_fingerprint: str
    predictions_sha256: str
    classes: tuple[str, ...]
    n: int
    n_patients: int | None
    accuracy: Proportion
    balanced_accuracy: float
    auroc: float | None
    per_class: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class RuleOutcome:
    """One rule of the policy, held against one figure."""

    rule: str
    required: float
    found: float | None
    passed: bool
    message: str


@dataclass(frozen=True)
class Verdict:
    """Whether a model package may be registered, with every reason."""

    model: str
    passed: bool
    package_digest: str
    split_fingerprint: str
    policy_fingerprint: str
    evaluation_fingerprint: str
    outcomes: tuple[RuleOutcome, ...]


class Recorder(Protocol):
    """What training and evaluation need of tracking: they record, and never know where it goes."""

    def params(self, values: dict[str, Any]) -> None:
        """Record settings; each key once."""

    def tags(self, values: dict[str, Any]) -> None:
        """Record tags; a later value replaces an earlier one."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record figures of one step; a (name, step) that is already recorded is left as it is."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, or a folder of files, as it is now."""


def as_dict(record: Any) -> dict[str, Any]:
    """Return a record as JSON-like values."""
    return dataclasses.asdict(record)


def record_fingerprint(record: Any) -> str:
    """Return the fingerprint of a record's whole content."""
    return fingerprint(as_dict(record))


def save_record(record: Any, path: Path) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, as_dict(record))


def load_record(kind: type[RecordType], path: Path) -> RecordType:
    """Read a record and check its types; DataInvalid if it is missing, damaged, or of another shape."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataInvalid(
            f"{path} is not a {kind.__name__} of this version ({place}: {first['msg']}). "
            "Run the step that makes it again."
        ) from None
