"""A challenger that answers silently: its scores are logged and compared, and nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
import time

from medvision.errors import MedvisionError
from medvision.serving.answering import Weighed, record, weigh
from medvision.serving.served import Served
from medvision.serving.service import Service
from medvision.serving.uploads import Upload

_LOG = logging.getLogger(__name__)
# Beyond it the answers that people wait for come first, and a case is left out.
_MAX_WAITING = 16
_waiting: set[asyncio.Task[None]] = set()


def answer_silently(
    service: Service, shadow: Served, answered: Weighed, file: Upload, request_id: str, key_id: str
) -> None:
    """Have a challenger answer an image after the one who was asked, unless too many wait already."""
    if len(_waiting) < _MAX_WAITING:
        task = asyncio.create_task(_answer(service, shadow, answered, file, request_id, key_id))
        _waiting.add(task)
        task.add_done_callback(_waiting.discard)


async def _answer(
    service: Service, shadow: Served, answered: Weighed, file: Upload, request_id: str, key_id: str
) -> None:
    began, predictor = time.monotonic(), shadow.predictor
    try:
        image = await asyncio.get_running_loop().run_in_executor(
            service.reading,
            lambda: service.decoders.read(file.content, predictor.forms, shadow.formats, timeout_s=service.deadline_s),
        )
        weighed = await service.workers.run(lambda: weigh(shadow, image), timeout_s=service.deadline_s)
        entry = record(
            weighed, request_id=request_id, key_id=key_id, endpoint="shadow", role="shadow", case=None,
            input_sha256=file.sha256,
            latency_ms=1000 * (time.monotonic() - began),
        )  # fmt: skip
        await asyncio.wrap_future(service.audit.commit([entry]))
    except MedvisionError as error:
        _LOG.warning("The challenger did not answer: %s", error)
        return
    if weighed.prediction.label != answered.prediction.label:
        service.metrics.shadow_disagreed(shadow.found.name, shadow.version)
