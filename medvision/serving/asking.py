"""What becomes of a request once its files are there: answered, written down, counted."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import replace

from medvision.errors import AuditUnavailable, DeadlinePassed, DecodeRejected, MedvisionError, TryAgainLater
from medvision.evaluation.explain import render_map
from medvision.serving.answering import Weighed
from medvision.serving.asked import Asked, entry_of, read_image, weigh_image
from medvision.serving.shadowing import answer_silently
from medvision.serving.uploads import Upload

_AT_A_TIME = 2


async def answer_file(asked: Asked, file: Upload, case: str = "") -> Weighed:
    """Return what a version says of an image; ``case``: which case it is of, if there is a challenger beside it."""
    service = asked.service
    # Without a case the image itself decides: the same image gets the same version each time.
    served = service.roster.choose(case or file.sha256)
    image = await read_image(asked, served, file)
    weighed = await weigh_image(asked, served, image)
    shadow = service.roster.shadow_of(served)
    if shadow:
        answer_silently(asked, shadow, weighed, file)
    return weighed


async def explain(asked: Asked, weighed: Weighed, file: Upload) -> str:
    """Return where the model looked, to lay over the image: PNG in base64."""
    image = await read_image(asked, weighed.served, file)
    predictor, label = weighed.served.predictor, weighed.prediction.label
    drawn = await asked.service.workers.run(lambda: render_map(predictor.explain(image, label)), timeout_s=asked.left_s)
    return base64.b64encode(drawn).decode()


async def answer_files(asked: Asked, files: Sequence[Upload]) -> list[Weighed | MedvisionError]:
    """Answer files, a few at a time, so that others have their turn; each has as long as one alone.

    For one that can't be answered return why.
    """
    places = asyncio.Semaphore(_AT_A_TIME)

    async def answer(file: Upload) -> Weighed | MedvisionError:
        async with places:
            try:
                return await answer_file(replace(asked, ends_s=time.monotonic() + asked.service.deadline_s), file)
            except (DecodeRejected, DeadlinePassed, TryAgainLater) as error:
                return error

    return await asyncio.gather(*map(answer, files))


async def commit(asked: Asked, answers: Sequence[tuple[Weighed, Upload]], case: str = "") -> None:
    """Return when the answers are on the disk, all of them: none leaves before.

    Raises AuditUnavailable: they can't be written.
    """
    entries = [entry_of(asked, weighed, file, case) for weighed, file in answers]
    if not entries:
        return
    began = time.monotonic()
    try:
        await asyncio.wait_for(asyncio.wrap_future(asked.service.audit.commit(entries)), max(asked.left_s, 1.0))
    except asyncio.TimeoutError:
        raise AuditUnavailable("The audit log does not take what it is given.") from None
    asked.service.metrics.audit_commit_seconds.observe(time.monotonic() - began)


def count(asked: Asked, weighed: Weighed) -> None:
    """Count an answer that was given."""
    served = weighed.served
    prediction = None if weighed.is_indeterminate else weighed.prediction
    asked.service.usage.answered(weighed, asked.elapsed_ms)
    asked.service.metrics.answered(
        served.found.name,
        served.version,
        prediction.label if prediction else None,
        prediction.confidence if prediction else None,
        abstention=weighed.abstention,
    )
