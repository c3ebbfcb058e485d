"""The probabilities of a package for one side of the split, and what is fitted to them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from medvision.config import Config
    from medvision.data.cache import ImageRows
    from medvision.evaluation.predictions import Predictions
    from medvision.evaluation.scoring import Scores
    from medvision.models.network import Network
    from medvision.records import Figure, PackageInfo, Preprocessing
    from pipelines.dataset import SplitDataset

# Files of a dataset are of one kind, or of a few.
_FILES = 100


def check_lineage(info: PackageInfo, dataset: SplitDataset) -> None:
    """Raise FingerprintMismatch unless a package was trained on the split at hand."""
    from medvision.errors import FingerprintMismatch

    if info.split_fingerprint != dataset.split.fingerprint:
        raise FingerprintMismatch(
            f"{info.name} was trained on split {info.split_fingerprint[:12]} of {info.dataset}, but the split at hand "
            f"is {dataset.split.fingerprint[:12]}: its test images may have been trained on. Other settings, other "
            "images, or altered copies that an audit has found since then, change a split. Evaluate with the settings "
            "of the training; or, after such an audit, normalize and train again."
        )


@dataclass(frozen=True)
class Scored:
    """A package that has scored the test split: networks where they compute, predictions, scores of the members."""

    info: PackageInfo
    networks: tuple[Network, ...]
    predictions: Predictions
    members: np.ndarray


def look_at_test_set(info: PackageInfo, dataset: SplitDataset, config: Config, *, step: str) -> int:
    """Write into the ledger of the test set that a step opens it; return how often it was opened, this included."""
    from medvision.records import record_fingerprint
    from medvision.validation.test_ledger import fingerprint_test_set, look

    return look(
        config.dataset_dir,
        step=step,
        model=info.name,
        package_digest=record_fingerprint(info),
        test_fingerprint=fingerprint_test_set(dataset.manifest, dataset.split),
    )


def score_test_set(info: PackageInfo, networks: Sequence[Network], dataset: SplitDataset, config: Config) -> Scored:
    """Score the test split; the predictions say of which package and of which test set they are."""
    from medvision.evaluation.diversity import disagreement
    from medvision.records import record_fingerprint
    from medvision.validation.test_ledger import fingerprint_test_set

    scores = score_split(info, networks, dataset, config, "test")
    predictions = dataclasses.replace(
        make_predictions(dataset, dataset.split.indices("test"), scores.y_score),
        package_digest=record_fingerprint(info),
        test_fingerprint=fingerprint_test_set(dataset.manifest, dataset.split),
        disagreement=disagreement(scores.members) if len(info.members) > 1 else None,
    )
    return Scored(info, tuple(networks), predictions, scores.members)


def score_split(
    info: PackageInfo, networks: Sequence[Network], dataset: SplitDataset, config: Config, side: str
) -> Scores:
    """Score the images of one side of the split, in the order of its rows."""
    from medvision.evaluation.scoring import place, score_package
    from medvision.models.devices import choose_device

    device, rows = choose_device(config.performance), dataset.split.indices(side)
    placed = [place(network, device) for network in networks]
    return score_package(info, placed, lambda form: open_images(form, rows, dataset, config), batch_size=64)


def measure_indeterminate(scored: Scored, dataset: SplitDataset, config: Config) -> Figure | None:
    """Return the share of test images outside the package's domain, which would not be answered; None without one."""
    from medvision.evaluation.domain import domain_preprocessing, measure_distances
    from medvision.evaluation.intervals import proportion

    if scored.info.domain is None:
        return None
    images = open_images(domain_preprocessing(scored.info), dataset.split.indices("test"), dataset, config)
    return proportion(measure_distances(images, scored.info.domain) > 1, scored.predictions.groups)


def open_images(preprocessing: Preprocessing, rows: np.ndarray, dataset: SplitDataset, config: Config) -> ImageRows:
    """Open some rows of the dataset as a member of a package takes them."""
    from medvision.data.cache import ImageRows, open_cache

    images = open_cache(
        dataset.manifest,
        image_size=preprocessing.image_size,
        channels=preprocessing.channels,
        folder=config.paths.state / "cache",
        workers=config.performance.workers,
    )
    return ImageRows(images, rows)


def make_predictions(dataset: SplitDataset, rows: np.ndarray, y_score: np.ndarray) -> Predictions:
    """Return scores (n, k) with the truth and the patients of the rows (n,) that they are of."""
    from medvision.evaluation.predictions import Predictions

    table = dataset.manifest.rows.iloc[rows]
    return Predictions(
        image_ids=tuple(table.image_id),
        patient_keys=tuple(key or None for key in table.patient_key),
        y_true=table.label.to_numpy(),
        y_score=y_score,
        classes=dataset.manifest.classes,
    )


def pack(
    folder: Path,
    info: PackageInfo,
    networks: Sequence[Network],
    dataset: SplitDataset,
    config: Config,
    *,
    rule: str = "soft",
) -> tuple[PackageInfo, float]:
    """Fit on val how members are combined, what turns scores into decisions, and the domain, and only then save.

    Return the package and its accuracy on val. A package that is already there stays if nothing can be fitted, as an
    operating point on too few cases.
    """
    from medvision.evaluation.decisions import fit_decisions
    from medvision.evaluation.domain import domain_preprocessing, fit_domain
    from medvision.models.package import save_package
    from medvision.training.ensembling import fit_combination

    rows = dataset.split.indices("val")
    members = score_split(info, networks, dataset, config, "val").members
    table = dataset.manifest.rows.iloc[rows]
    groups = table.group.factorize()[0]
    combination, y_score = fit_combination(rule, members, table.label.to_numpy(), groups)
    val = make_predictions(dataset, rows, y_score)
    fitted = fit_decisions(dataclasses.replace(info, combination=combination), val, config.evaluation)
    form = domain_preprocessing(info)
    seen = open_images(form, dataset.split.indices("train"), dataset, config)
    domain = fit_domain(seen, open_images(form, rows, dataset, config), units=groups)
    fitted = dataclasses.replace(fitted, domain=domain, formats=_formats(dataset))
    return save_package(folder, fitted, networks), float((val.y_pred == val.y_true).mean())


def _formats(dataset: SplitDataset) -> tuple[str, ...]:
    """Return the kinds of files that train images are in, as a hundred of them, evenly spread, tell."""
    from medvision.data.decode import sniff_format

    rows = dataset.split.indices("train")
    some = rows[:: -(-len(rows) // _FILES)]
    return tuple(sorted({sniff_format(dataset.manifest.source(row).file) for row in some.tolist()}))
