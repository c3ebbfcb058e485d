"""Takes a journal to the sinks, in threads of their own, so that no training ever waits for a server.

Each sink has its own place in the journal, on disk. What a sink could not take stays pending and is offered again.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from typing import Protocol

from medvision.errors import TrackingUnavailable
from medvision.tracking.journal import Event, Journal, Tail

_LOG = logging.getLogger(__name__)

_POLL_S = 0.2
_FIRST_PAUSE_S = 0.5
# A server that is back is noticed within this time; one that is down is asked six times a minute.
_LONGEST_PAUSE_S = 10.0
# A run whose parent is only just being made waits for it a moment, and that is no news.
_FAILURES_BEFORE_WARNING = 2


class Sink(Protocol):
    """Takes events of one kind at a time, in order; a second delivery of the same events changes nothing."""

    name: str

    def deliver(self, kind: str, events: list[Event]) -> None:
        """Take the events; TrackingUnavailable if they must be offered again, any other error switches the sink off."""

    def close(self) -> None:
        """Let go of files and connections."""


class Delivery:
    """What one sink still has to get of one journal."""

    def __init__(self, journal: Journal, sink: Sink) -> None:
        self.sink = sink
        self._bookmark = journal.bookmark(sink.name)
        self._delivered_bytes = self._bookmark.delivered_bytes
        self._tail = Tail(journal)
        self._pending: list[Event] = []

    def pending(self) -> list[Event]:
        """Return all events that were recorded and that the sink has not accepted."""
        self._pending += [event for event in self._tail.read() if event.end_byte > self._delivered_bytes]
        return self._pending

    def deliver(self) -> None:
        """Offer the pending events to the sink; what it accepts is noted on disk before the next are offered."""
        for kind, group in itertools.groupby(list(self.pending()), key=lambda event: event.kind):
            events = list(group)
            self.sink.deliver(kind, events)
            self._delivered_bytes = events[-1].end_byte
            self._bookmark.update(delivered_bytes=self._delivered_bytes, last_kind=kind)
            del self._pending[: len(events)]


class Courier(threading.Thread):
    """Delivers to one sink while a run lasts, and asks ever more seldom while the sink does not answer."""

    def __init__(self, journal: Journal, sink: Sink) -> None:
        super().__init__(name=f"courier-{sink.name}", daemon=True)
        self._delivery = Delivery(journal, sink)
        self._wake = threading.Event()
        self._is_ending = False
        self._is_patient = True
        self._is_given_up = False

    def run(self) -> None:
        """Deliver until the run has ended and all is delivered, or the run waits no longer."""
        try:
            self._carry()
            self._delivery.sink.close()
        except Exception as error:
            name = self._delivery.sink.name
            _LOG.warning("%s is off for the rest of this run: %s: %s", name, type(error).__name__, error)

    def finish(self, deadline: float, *, is_patient: bool) -> None:
        """Say that nothing more is recorded, and wait until the rest is delivered, at most until ``deadline``.

        Parameters
        ----------
        deadline: on the monotonic clock, in seconds.
        is_patient: try again when the sink does not answer.
        """
        self._is_patient = is_patient
        self._is_ending = True
        self._wake.set()
        self.join(max(0.0, deadline - time.monotonic()))
        self._is_given_up = True

    def _carry(self) -> None:
        failures = 0
        while not self._is_given_up:
            # Read before delivering: what is recorded before the end is then surely seen.
            is_ending = self._is_ending
            try:
                self._delivery.deliver()
            except TrackingUnavailable as error:
                if is_ending and not self._is_patient:
                    return
                if failures == _FAILURES_BEFORE_WARNING:
                    _LOG.warning("%s Recording goes on; it is delivered when the server is back.", error)
                failures = 1 if self._wait(pause_s(failures)) else failures + 1
                continue
            failures = 0
            if is_ending:
                return
            self._wait(_POLL_S)

    def _wait(self, timeout_s: float) -> bool:
        is_woken = self._wake.wait(timeout_s)
        self._wake.clear()
        return is_woken


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row before the next try."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(failures, 10), _LONGEST_PAUSE_S)


def discard_files(journal: Journal) -> None:
    """Delete the kept artifacts of a run that is delivered; the events stay, so that it can be continued."""
    shutil.rmtree(journal.files_dir, ignore_errors=True)
