"""A challenger that answers silently: its scores are logged and compared, and nobody waits for them."""

from __future__ import annotations

import asyncio
import logging

from medvision.errors import MedvisionError
from medvision.serving.answering import Weighed
from medvision.serving.asked import Asked, begin, entry_of, read_image, weigh_image
from medvision.serving.served import Served
from medvision.serving.uploads import Upload

_LOG = logging.getLogger(__name__)
# Beyond it the answers that people wait for come first, and a case is left out.
_MAX_WAITING = 16
_waiting: set[asyncio.Task[None]] = set()


def answer_silently(asked: Asked, shadow: Served, answered: Weighed, file: Upload) -> None:
    """Have a challenger answer an image after the one who was asked, unless too many wait already."""
    if len(_waiting) < _MAX_WAITING:
        own = begin(asked.service, asked.caller, asked.request_id, "shadow")
        task = asyncio.create_task(_answer(own, shadow, answered, file))
        _waiting.add(task)
        task.add_done_callback(_waiting.discard)


async def _answer(asked: Asked, shadow: Served, answered: Weighed, file: Upload) -> None:
    service = asked.service
    try:
        weighed = await weigh_image(asked, shadow, await read_image(asked, shadow, file))
        await asyncio.wrap_future(service.audit.commit([entry_of(asked, weighed, file, role="shadow")]))
    except MedvisionError as error:
        _LOG.warning("The challenger did not answer: %s", error)
        return
    if weighed.prediction.label != answered.prediction.label:
        service.metrics.shadow_disagreed(shadow.found.name, shadow.version)
