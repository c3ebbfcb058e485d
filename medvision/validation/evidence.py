"""What the gate is told beside the figures; what is missing fails the rule that asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from medvision.records import Audit, Figure
from medvision.validation.test_ledger import Usage


@dataclass(frozen=True)
class AgainstChampion:
    """Candidate minus champion on the same cases; both None where the registry has no champion.

    ``obstacle`` says why two models can't be compared, which then have no difference.
    """

    champion_digest: str | None
    difference: Figure | None
    obstacle: Objection | None = None


@dataclass(frozen=True)
class SubgroupFigure:
    """The figure that the policy asks for in one subgroup, on n patients, or images where patients are unknown.

    ``name`` says which subgroup by the column, and which class, for example "site = north, glioma".
    """

    column: str
    name: str
    n: int
    figure: Figure


@dataclass(frozen=True)
class Objection:
    """Why the evidence is no evidence: what was touched, or does not fit, and what to do."""

    what: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on beside the evaluation. None: it was not measured.

    ``subgroups`` has none by a column that the dataset lacks. ``made_at`` is UTC, ISO 8601.
    """

    test_fingerprint: str
    usage: Usage
    made_at: str
    latency_p95_ms: float | None = None
    audit: Audit | None = None
    comparison: AgainstChampion | None = None
    subgroups: tuple[SubgroupFigure, ...] | None = None
    objections: tuple[Objection, ...] = ()
