"""Candidate and champion on the same cases."""

from __future__ import annotations

from medvision.evaluation.paired import check_same_cases, difference, draw
from medvision.evaluation.predictions import Predictions
from medvision.records import Evaluation, Figure, PackageInfo
from medvision.validation.evidence import AgainstChampion, Objection


def find_obstacle(candidate: PackageInfo, champion: PackageInfo) -> Objection | None:
    """Return why a champion can't be scored on the test images of a candidate; None if it can be."""
    if candidate.classes != champion.classes:
        message = (
            f"the champion tells {', '.join(champion.classes)} apart and the candidate "
            f"{', '.join(candidate.classes)}, so that they have no figure in common"
        )
        remedy = "Other classes are another dataset: give it a new name, --set dataset.name=NAME, and train on it."
        return Objection("classes", message, remedy)
    if candidate.split_fingerprint != champion.split_fingerprint:
        message = (
            f"the champion was trained on split {champion.split_fingerprint[:12]} and the candidate on "
            f"{candidate.split_fingerprint[:12]}, so that it may have been trained on these test images"
        )
        remedy = (
            "Train the champion's recipe again on the split at hand and make that the champion, or train the candidate "
            "with the dataset settings of the champion."
        )
        return Objection("split", message, remedy)
    return None


def compare(candidate: Predictions, champion: Predictions, evaluation: Evaluation, figure: str) -> AgainstChampion:
    """Return candidate minus champion of an overall figure, paired, by the plan of the candidate's evaluation.

    Raises DataInvalid unless both were scored on the same cases and classes.
    """
    digest = champion.package_digest
    check_same_cases("the candidate", candidate, "the champion", champion)
    if digest == candidate.package_digest:
        return AgainstChampion(digest, Figure(0.0, 0.0, 0.0, 0.0, evaluation.n, "the same model package"))
    ours, theirs = draw(candidate, evaluation.plan), draw(champion, evaluation.plan)
    return AgainstChampion(digest, difference(ours, theirs, figure))
