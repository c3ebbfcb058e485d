"""What Prometheus may know of the prediction service: counts, durations and what answers, never a case.

Each service has a registry of its own. Labels are bounded: an endpoint is a route's template and not a path, a method
is one of HTTP's, and model, version and class are those of packages that were loaded.
"""

from __future__ import annotations

import threading

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COMMIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64)
_MODEL = ("model", "version")


class ServiceMetrics:
    """The metrics of one service, for any number of threads.

    ``in_flight``, ``queue_depth``, ``alias_diverged`` (1 if the registry's champion is not the ledger's),
    ``batch_size`` (images) and ``audit_commit_seconds`` are set by their owners, through ``inc``, ``dec``, ``set`` and
    ``observe``.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"medvision_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"medvision_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"medvision_{name}", text, labels, buckets=buckets, registry=registry)

        self.in_flight = gauge("in_flight", "Requests being answered.")
        self.queue_depth = gauge("queue_depth", "Images that wait for the model.")
        self.alias_diverged = gauge("alias_diverged", "1 if the registry's champion is not that of the ledger.")
        self.batch_size = histogram("batch_size", "Images in one call of the model.", _BATCH)
        self.audit_commit_seconds = histogram("audit_commit_seconds", "Until the audit log is on disk.", _COMMIT_S)
        self._requests = counter("requests_total", "Requests answered.", "endpoint", "method", "status")
        self._seconds = histogram("request_duration_seconds", "Until the answer is sent.", _REQUEST_S, "endpoint")
        self._predictions = counter("predictions_total", "Cases; label is empty without an answer.", *_MODEL, "label")
        self._confidence = histogram("confidence", "Probability of the predicted class.", _CONFIDENCE, *_MODEL)
        self._abstentions = counter("abstentions_total", "Cases left to a reader.", *_MODEL, "reason")
        self._errors = counter("errors_total", "Requests that were refused or failed, by type.", "type")
        self._disagreements = counter("shadow_disagreements_total", "Cases a shadow called otherwise.", *_MODEL)
        self._swaps = counter("swaps_total", "Changes of the model that answers.", "outcome")
        self._loaded = gauge("model_loaded", "1 if this version is loaded.", *_MODEL)
        self._info = gauge("model_info", "What is loaded.", *_MODEL, "package_digest", "engine", "policy")
        self._slots: dict[str, tuple[str, str, str, str, str]] = {}
        self._slots_lock = threading.Lock()

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request; ``endpoint`` is the template of its route, and one fixed word if it has none."""
        self._requests.labels(endpoint, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def answered(
        self, model: str, version: str, label: str | None, confidence: float | None, *, abstention: str | None
    ) -> None:
        """Count a case: its predicted class and confidence, None if there is no answer; why it is left to a reader.

        ``abstention``: set (the prediction set has not exactly one class), indeterminate (unlike what the model was
        made for), or None.
        """
        self._predictions.labels(model, version, label or "").inc()
        if confidence is not None:
            self._confidence.labels(model, version).observe(confidence)
        if abstention is not None:
            self._abstentions.labels(model, version, abstention).inc()

    def error(self, type_: str) -> None:
        """Count a request that was refused or has failed; ``type_`` is one of the service's own words."""
        self._errors.labels(type_).inc()

    def shadow_disagreed(self, model: str, version: str) -> None:
        """Count a case that a shadow, of this model and version, called otherwise than the answer did."""
        self._disagreements.labels(model, version).inc()

    def swapped(self, outcome: str) -> None:
        """Count a change of the model that answers; ``outcome`` is one of the service's own words."""
        self._swaps.labels(outcome).inc()

    def loaded(
        self, model: str, version: str, digest: str, engine: str, policy: str, *, slot: str = "champion"
    ) -> None:
        """Say what is loaded in a slot, champion or challenger; what was there before is forgotten."""
        self._fill(slot, (model, version, digest, engine, policy))

    def unloaded(self, slot: str) -> None:
        """Say that nothing is loaded in a slot any more."""
        self._fill(slot, None)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format, whose media type is ``CONTENT_TYPE``."""
        return generate_latest(self._registry)

    def _fill(self, slot: str, now: tuple[str, str, str, str, str] | None) -> None:
        with self._slots_lock:
            before = self._slots.pop(slot, None)
            if now is not None:
                self._slots[slot] = now
                self._loaded.labels(*now[:2]).set(1)
                self._info.labels(*now).set(1)
            # The new one first, so that no scrape finds none; and a version may be in both slots.
            left = self._slots.values()
            if before and before not in left:
                self._info.remove(*before)
            if before and before[:2] not in {other[:2] for other in left}:
                self._loaded.remove(*before[:2])
