"""All that the endpoints of the service share, made once when it starts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from medvision.serving.admission import Admission
from medvision.serving.api_keys import ApiKeys
from medvision.serving.audit_log import AuditLog
from medvision.serving.decoding import Decoders
from medvision.serving.metrics import ServiceMetrics
from medvision.serving.rate_limit import RateLimit
from medvision.serving.roster import Roster
from medvision.serving.usage import UsageCounts
from medvision.serving.workers import Workers


@dataclass(frozen=True)
class Service:
    """The parts of a running service; ``keys`` is None where it answers without, on this machine alone.

    ``case_key``: what case ids are hashed with before anything is kept of them.
    """

    roster: Roster
    audit: AuditLog
    keys: ApiKeys | None
    admission: Admission
    workers: Workers
    decoders: Decoders
    reading: ThreadPoolExecutor
    case_key: bytes
    deadline_s: float
    hosts: frozenset[str]
    limit: RateLimit = field(default_factory=RateLimit)
    metrics: ServiceMetrics = field(default_factory=ServiceMetrics)
    usage: UsageCounts = field(default_factory=UsageCounts)
    started_s: float = field(default_factory=time.monotonic)

    def reasons(self) -> list[str]:
        """Return why the service is not ready, by short names; none if it is."""
        present = self.roster.present
        found = {
            "draining": self.admission.is_draining,
            "no_champion": present.champion is None,
            "alias_diverged": present.is_diverged,
            "audit_unavailable": not self.audit.is_available,
            "workers_hang": self.workers.given_up >= 8,
        }
        return [name for name, is_so in found.items() if is_so]
