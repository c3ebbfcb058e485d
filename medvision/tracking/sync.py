"""Delivers what the tracking server could not take while the runs lasted."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from dataclasses import dataclass

from medvision.config import Config
from medvision.errors import TrackingUnavailable, TryAgainLater
from medvision.tracking import mlflow_sink
from medvision.tracking.delivery import Delivery, discard_files, pause_s
from medvision.tracking.journal import Event, Journal, outbox
from medvision.tracking.mlflow_sink import MlflowSink

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyncReport:
    """How many events were delivered and how many are still pending, and the keys of the runs they belong to."""

    delivered: int
    pending: int
    runs: tuple[str, ...]


def sync(config: Config, timeout_s: float) -> SyncReport:
    """Deliver every run that its own process can't deliver any more, and end those that were killed.

    Runs whose process is alive are left to it. Runs are delivered in the order in which they were started, since a
    nested run needs its parent.
    """
    mlflow_sink.prepare()
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as owned:
        journals = _left_behind(config, owned)
        deliveries = [Delivery(journal, MlflowSink(journal, _uri(config, journal))) for journal in journals]
        n_before = sum(len(delivery.pending()) for delivery in deliveries)
        _deliver_until(deadline, deliveries)
        n_after = sum(len(delivery.pending()) for delivery in deliveries)
        for journal in journals:
            if journal.is_delivered(mlflow_sink.NAME):
                discard_files(journal)
    return SyncReport(n_before - n_after, n_after, tuple(journal.run_key for journal in journals))


def _left_behind(config: Config, owned: contextlib.ExitStack) -> list[Journal]:
    journals = [Journal(path.parent) for path in outbox(config.paths.state).glob("*/events.jsonl")]
    undelivered = [journal for journal in journals if not journal.is_delivered(mlflow_sink.NAME) and _starts(journal)]
    left_behind = [journal for journal in sorted(undelivered, key=Journal.started_ms) if _own(journal, owned)]
    for journal in left_behind:
        _end_if_killed(journal)
    return left_behind


def _starts(journal: Journal) -> list[Event]:
    # None, where the process was killed before its first event was whole.
    return [event for event in journal.events() if event.kind == "start"]


def _own(journal: Journal, owned: contextlib.ExitStack) -> bool:
    try:
        owned.enter_context(journal.owned())
    except TryAgainLater:
        return False
    return True


def _end_if_killed(journal: Journal) -> None:
    events = journal.events()
    if [event.kind for event in events if event.kind in ("start", "end")][-1] == "start":
        journal.append("end", at_ms=events[-1].at_ms, status="KILLED")


def _uri(config: Config, journal: Journal) -> str:
    # Not the server that would be asked today: the variable that named it may have been set for that run only.
    return config.tracking.uri or str(_starts(journal)[0].content["tracking_uri"])


def _deliver_until(deadline: float, deliveries: list[Delivery]) -> None:
    for failures in itertools.count():
        deliveries = _try_each(deliveries, deadline)
        if not deliveries or time.monotonic() + pause_s(failures) > deadline:
            return
        time.sleep(pause_s(failures))


def _try_each(deliveries: list[Delivery], deadline: float) -> list[Delivery]:
    """Try each delivery once, and return those that failed; after the deadline the first failure is the last."""
    failed = []
    for delivery in deliveries:
        try:
            delivery.deliver()
        except TrackingUnavailable as error:
            _LOG.info("%s", error)
            failed.append(delivery)
            if time.monotonic() > deadline:
                break
    return failed
