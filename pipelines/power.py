"""Say before the first epoch what no model at all could show on this dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from medvision.config import Config
    from medvision.validation.policy import Policy
    from medvision.validation.power import Counts
    from pipelines.dataset import SplitDataset


def say_unattainable(dataset: SplitDataset, config: Config, *, policies: Path | None = None) -> None:
    """Print each rule of each policy that the test split is too small for.

    ``policies``: file of the policies, the project's if None. Raises OperatingPointUnattainable where val is too small.
    """
    for messages in find_too_few(dataset, policies=policies).values():
        for message in messages:
            say(f"  [policy] {message}")
    _check_operating_points(dataset, config)


def find_too_few(dataset: SplitDataset, *, policies: Path | None = None) -> dict[str, list[str]]:
    """Return a sentence for each rule that the test split is too small for, by the name of its policy.

    ``policies``: file of the policies, the project's if None.
    """
    from medvision.files import project_root
    from medvision.validation.policy import load_policies
    from medvision.validation.power import find_unattainable

    counts, path = _count(dataset, "test"), policies or project_root() / "config" / "validation.yaml"
    # A folder without policies can be trained in; a file that was asked for has to be there.
    known = load_policies(path).values() if policies or path.is_file() else ()
    about = [policy for policy in known if _is_about(policy, dataset.manifest.classes)]
    found = {policy.name: find_unattainable(policy, counts) for policy in about}
    return {name: messages for name, messages in found.items() if messages}


def _check_operating_points(dataset: SplitDataset, config: Config) -> None:
    """Raise OperatingPointUnattainable where even a perfect model would have too few val cases."""
    from medvision.errors import OperatingPointUnattainable
    from medvision.evaluation.operating_point import patients_needed

    target, counts = config.evaluation.target_sensitivity, _count(dataset, "val")
    needed = patients_needed(target)
    for name in config.evaluation.critical_classes:
        if counts.per_class[name] < needed:
            raise OperatingPointUnattainable(
                f"{name}: a sensitivity of {target} can't be shown on {counts.per_class[name]} val {counts.unit}, even "
                f"if all of them are found: {needed} are needed. Add cases, lower "
                "evaluation.target_sensitivity, or take the class from evaluation.critical_classes."
            )


def _is_about(policy: Policy, classes: tuple[str, ...]) -> bool:
    return {*policy.rules.critical, *policy.rules.classes} <= {*classes}


def _count(dataset: SplitDataset, side: str) -> Counts:
    """Return the patients of each class on one side of the split, and of all; images, where patients are unknown."""
    from medvision.validation.power import Counts

    rows: pd.DataFrame = dataset.manifest.rows.iloc[dataset.split.indices(side)]
    # An image whose patient is unknown counts as a patient of its own.
    cases = rows.patient_key.where(rows.patient_key != "", rows.image_id)
    per_class = {name: int(cases[rows.label == c].nunique()) for c, name in enumerate(dataset.manifest.classes)}
    return Counts(per_class, int(cases.nunique()), "patients" if dataset.manifest.knows_patients else "images")
