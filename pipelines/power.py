"""Say before the first epoch what no model at all could show on this dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say

if TYPE_CHECKING:
    import pandas as pd

    from medvision.config import Config
    from medvision.validation.policy import Policy
    from pipelines.dataset import SplitDataset


def say_unattainable(dataset: SplitDataset, config: Config) -> None:
    """Print each rule of each policy that the test split is too small for, and each operating point that val is."""
    from medvision.files import project_root
    from medvision.validation.policy import load_policies
    from medvision.validation.power import find_unattainable

    classes = dataset.manifest.classes
    cases, patients = _count(dataset, "test")
    path = project_root() / "config" / "validation.yaml"
    policies = load_policies(path).values() if path.is_file() else ()
    for policy in policies:
        if _is_about(policy, classes):
            for message in find_unattainable(policy, cases, patients):
                say(f"  [policy] {message}")
    _check_operating_points(dataset, config)


def _check_operating_points(dataset: SplitDataset, config: Config) -> None:
    """Raise OperatingPointUnattainable where even a perfect model would have too few val cases."""
    from medvision.errors import OperatingPointUnattainable
    from medvision.evaluation.operating_point import patients_needed

    target, (cases, patients) = config.evaluation.target_sensitivity, _count(dataset, "val")
    needed, counted = patients_needed(target), patients or cases
    for name in config.evaluation.critical_classes:
        if counted[name] < needed:
            raise OperatingPointUnattainable(
                f"{name}: a sensitivity of {target} can't be shown on {counted[name]} val "
                f"{'patients' if patients else 'images'}, even if all of them are found: {needed} are needed. Add "
                "cases, lower evaluation.target_sensitivity, or take the class from evaluation.critical_classes."
            )


def _is_about(policy: Policy, classes: tuple[str, ...]) -> bool:
    return {*policy.rules.critical, *policy.rules.classes} <= {*classes}


def _count(dataset: SplitDataset, side: str) -> tuple[dict[str, int], dict[str, int] | None]:
    """Return images of each class on one side of the split, and patients, None where they are unknown."""
    classes = dataset.manifest.classes
    rows: pd.DataFrame = dataset.manifest.rows.iloc[dataset.split.indices(side)]
    images = {name: int((rows.label == c).sum()) for c, name in enumerate(classes)}
    if not dataset.manifest.knows_patients:
        return images, None
    # An image whose patient is unknown counts as a patient of its own.
    unit = rows.patient_key.where(rows.patient_key != "", rows.image_id)
    return images, {name: int(unit[rows.label == c].nunique()) for c, name in enumerate(classes)}
