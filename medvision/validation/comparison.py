"""Candidate and champion on the same cases."""

from __future__ import annotations

from medvision.evaluation.paired import check_same_cases, difference, draw
from medvision.evaluation.predictions import Predictions
from medvision.records import Evaluation, Figure
from medvision.validation.evidence import AgainstChampion
from medvision.validation.power import best_bound, counts_of, evidence_size


def compare(candidate: Predictions, champion: Predictions, evaluation: Evaluation, figure: str) -> AgainstChampion:
    """Return candidate minus champion of an overall figure, paired, by the plan of the candidate's evaluation.

    Raises DataInvalid unless both were scored on the same cases and classes.
    """
    digest = champion.package_digest
    check_same_cases("the candidate", candidate, "the champion", champion)
    if digest == candidate.package_digest:
        return AgainstChampion(digest, Figure(0.0, 0.0, 0.0, 0.0, evaluation.n, "the same model package"))
    ours, theirs = draw(candidate, evaluation.plan), draw(champion, evaluation.plan)
    found = difference(ours, theirs, figure)
    if (ours.replicates[figure] - theirs.replicates[figure]).any() or found.value != 0:
        return AgainstChampion(digest, found)
    # Not one of m cases on which they differ: Clopper and Pearson's bound of how many there may be.
    m = evidence_size(figure, counts_of(evaluation))
    worst = best_bound(m) - 1
    return AgainstChampion(digest, Figure(0.0, worst, -worst, worst, evaluation.n, f"no difference on {m} cases"))
