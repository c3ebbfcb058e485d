"""A request while it is answered: who asked, how much time is left, and what every answer goes through."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from medvision.data.pseudonyms import pseudonym
from medvision.errors import DeadlinePassed, TryAgainLater
from medvision.serving.access import Caller
from medvision.serving.answering import Weighed, record, weigh
from medvision.serving.audit_entry import AuditEntry, Role
from medvision.serving.reading import Forms
from medvision.serving.served import Served
from medvision.serving.service import Service
from medvision.serving.uploads import Upload


@dataclass(frozen=True)
class Asked:
    """One request: who asked, under which id, since when, and when its time is up (both on the monotonic clock)."""

    service: Service
    caller: Caller
    request_id: str
    endpoint: str
    began_s: float
    ends_s: float

    @property
    def left_s(self) -> float:
        """Return how much time is left, negative when it is up."""
        return self.ends_s - time.monotonic()

    @property
    def elapsed_ms(self) -> float:
        """Return for how long it has been answered."""
        return 1000 * (time.monotonic() - self.began_s)


def begin(service: Service, caller: Caller, request_id: str, endpoint: str) -> Asked:
    """Return a request whose time begins now."""
    now = time.monotonic()
    return Asked(service, caller, request_id, endpoint, now, now + service.deadline_s)


async def read_image(asked: Asked, served: Served, file: Upload) -> Forms:
    """Return an image as a version takes it; DecodeRejected if it is none, DeadlinePassed when the time is up."""
    service = asked.service
    reading = asyncio.get_running_loop().run_in_executor(
        service.reading,
        lambda: service.decoders.read(file.content, served.predictor.forms, served.formats, timeout_s=asked.left_s),
    )
    try:
        return await asyncio.wait_for(reading, max(asked.left_s, 0))
    except asyncio.TimeoutError:
        raise DeadlinePassed("The image took too long to read.") from None


async def weigh_image(asked: Asked, served: Served, image: Forms) -> Weighed:
    """Return what a version says of an image; DeadlinePassed when the time is up, TryAgainLater without memory."""
    try:
        return await asked.service.workers.run(lambda: weigh(served, image), timeout_s=asked.left_s)
    except MemoryError:
        raise TryAgainLater("The image needs more memory than there is.") from None


def entry_of(asked: Asked, weighed: Weighed, file: Upload, case: str = "", *, role: Role = "answer") -> AuditEntry:
    """Return what the audit log keeps of an answer."""
    return record(
        weighed,
        request_id=asked.request_id,
        key_id=asked.caller.key_id,
        endpoint=asked.endpoint,
        role=role,
        case=pseudonym(asked.service.case_key, case) if case else None,
        input_sha256=file.sha256,
        latency_ms=asked.elapsed_ms,
    )
