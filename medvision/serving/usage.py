"""What was asked and answered since the service was started, in numbers."""

from __future__ import annotations

from collections import Counter, deque
from datetime import datetime, timezone

import numpy as np

from medvision.serving.answering import Weighed
from medvision.serving.schemas import Usage

_LATENCIES = 1_000


class UsageCounts:
    """Counts, on the event loop's thread alone."""

    def __init__(self) -> None:
        self._since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._requests = 0
        self._abstentions: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._confidence = 0.0
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)

    def asked(self, key_id: str) -> None:
        """Count a request."""
        self._requests += 1
        self._keys[key_id] += 1

    def answered(self, weighed: Weighed, latency_ms: float) -> None:
        """Count an answer."""
        self._versions[weighed.served.version] += 1
        self._latencies_ms.append(latency_ms)
        if weighed.abstention:
            self._abstentions[weighed.abstention] += 1
        if not weighed.is_indeterminate:
            self._labels[weighed.prediction.label] += 1
            self._confidence += weighed.prediction.confidence

    def told(self) -> Usage:
        """Return the counts."""
        n = sum(self._labels.values())
        names = ("p50", "p95", "p99")
        found = np.percentile(self._latencies_ms, (50, 95, 99)).tolist() if self._latencies_ms else [None] * 3
        return Usage(
            since=self._since,
            requests=self._requests,
            predictions=sum(self._versions.values()),
            indeterminate=self._abstentions["indeterminate"],
            abstentions=self._abstentions["set"],
            by_label=dict(self._labels),
            by_version=dict(self._versions),
            by_key=dict(self._keys),
            mean_confidence=self._confidence / n if n else None,
            latency_ms=dict(zip(names, found, strict=True)),
        )
