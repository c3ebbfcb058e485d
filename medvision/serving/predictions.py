"""The endpoints that answer images."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from medvision.data.pseudonyms import pseudonym
from medvision.errors import AuditUnavailable, DeadlinePassed, DecodeRejected, TryAgainLater
from medvision.evaluation.explain import render_map
from medvision.serving.access import Caller, charge, needs, service_of
from medvision.serving.answering import Weighed, describe, describe_more, record, weigh
from medvision.serving.audit_log import AuditEntry
from medvision.serving.documented import form_of, problems
from medvision.serving.schemas import AdvancedAnswer, Answer, BatchAnswer, FileAnswer, Summary
from medvision.serving.served import Served
from medvision.serving.service import Service
from medvision.serving.shadowing import answer_silently
from medvision.serving.uploads import MAX_FILE_BYTES, Upload, read_form

MAX_FILES = 32
_MAX_BATCH_BYTES = 64 << 20
_AT_A_TIME = 2
_CASE_LENGTH = 256

router = APIRouter(prefix="/api/v1", tags=["predict"])
CallerKey = Annotated[Caller, needs("predict")]


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
    def elapsed_ms(self) -> float:
        """Return for how long it has been answered."""
        return 1000 * (time.monotonic() - self.began_s)


@router.post(
    "/predict", responses=problems(400, 401, 403, 408, 413, 415, 429, 503, 504), openapi_extra=form_of("image")
)
async def predict(request: Request, caller: CallerKey) -> Answer:
    """Answer one image: the most probable class, and the calibrated probability of each."""
    service = service_of(request)
    async with _one_file(request, service) as form:
        with service.admission.slot():
            asked = _begin(request, service, caller, "predict")
            weighed = await _answer_file(asked, form.files[0], form.fields.get("case_id", ""))
            await _commit(asked, [_entry(asked, weighed, form.files[0], form.fields.get("case_id", ""))])
    _count(asked, weighed)
    return describe(weighed, asked.request_id, asked.elapsed_ms)


@router.post(
    "/predict/advanced",
    responses=problems(400, 401, 403, 408, 413, 415, 422, 429, 503, 504),
    openapi_extra=form_of("image"),
)
async def predict_advanced(
    request: Request,
    caller: CallerKey,
    heat_map: Annotated[bool, Query(description="Also return where the model looked, to lay over the image.")] = False,
) -> AdvancedAnswer:
    """Answer one image, with all that a person needs to weigh the answer."""
    service = service_of(request)
    async with _one_file(request, service) as form:
        with service.admission.slot():
            asked = _begin(request, service, caller, "predict/advanced")
            case = form.fields.get("case_id", "")
            weighed = await _answer_file(asked, form.files[0], case)
            drawn = await _explain(asked, weighed, form.files[0]) if heat_map and not weighed.is_indeterminate else None
            await _commit(asked, [_entry(asked, weighed, form.files[0], case)])
    _count(asked, weighed)
    return describe_more(weighed, asked.request_id, asked.elapsed_ms, drawn)


@router.post(
    "/predict/batch",
    responses=problems(400, 401, 403, 408, 413, 415, 429, 503, 504),
    openapi_extra=form_of("images", many=True),
)
async def predict_batch(request: Request, caller: CallerKey) -> BatchAnswer:
    """Answer many images; one that can't be read is reported, and the others are answered."""
    service = service_of(request)
    async with read_form(
        request, service.admission, field="images", max_files=MAX_FILES, max_bytes=_MAX_BATCH_BYTES,
        timeout_s=service.deadline_s,
    ) as form:  # fmt: skip
        charge(service, caller, len(form.files) - 1)
        with service.admission.slot():
            asked = _begin(request, service, caller, "predict/batch")
            found = await _answer_files(asked, form.files)
            weighed = [(each, file) for each, file in zip(found, form.files, strict=True) if isinstance(each, Weighed)]
            await _commit(asked, [_entry(asked, each, file, "") for each, file in weighed])
    service.metrics.batch_size.observe(len(form.files))
    for each, _ in weighed:
        _count(asked, each)
    return _describe_all(asked, form.files, found)


def _one_file(request: Request, service: Service) -> Any:
    return read_form(
        request, service.admission, field="image", max_files=1, max_bytes=MAX_FILE_BYTES, timeout_s=service.deadline_s
    )


def _begin(request: Request, service: Service, caller: Caller, endpoint: str) -> Asked:
    now = time.monotonic()
    return Asked(service, caller, request.state.request_id, endpoint, now, now + service.deadline_s)


async def _answer_file(asked: Asked, file: Upload, case: str) -> Weighed:
    service = asked.service
    # Without a case the image itself decides: the same image gets the same version each time.
    served = service.roster.choose(case[:_CASE_LENGTH] or file.sha256)
    image = await _read(asked, served, file)
    weighed = await _weigh(asked, served, image)
    shadow = service.roster.shadow_of(served)
    if shadow:
        answer_silently(service, shadow, weighed, file, asked.request_id, asked.caller.key_id)
    return weighed


async def _read(asked: Asked, served: Served, file: Upload) -> Any:
    service = asked.service
    reading = asyncio.get_running_loop().run_in_executor(
        service.reading,
        lambda: service.decoders.read(
            file.content, served.predictor.forms, served.formats, timeout_s=asked.ends_s - time.monotonic()
        ),
    )
    try:
        return await asyncio.wait_for(reading, max(asked.ends_s - time.monotonic(), 0))
    except asyncio.TimeoutError:
        raise DeadlinePassed("The image took too long to read.") from None


async def _weigh(asked: Asked, served: Served, image: Any) -> Weighed:
    left_s = asked.ends_s - time.monotonic()
    try:
        return await asked.service.workers.run(lambda: weigh(served, image), timeout_s=left_s)
    except MemoryError:
        raise TryAgainLater("The image needs more memory than there is.") from None


async def _explain(asked: Asked, weighed: Weighed, file: Upload) -> str:
    image = await _read(asked, weighed.served, file)
    predictor, label = weighed.served.predictor, weighed.prediction.label
    left_s = asked.ends_s - time.monotonic()
    drawn = await asked.service.workers.run(lambda: render_map(predictor.explain(image, label)), timeout_s=left_s)
    return base64.b64encode(drawn).decode()


async def _answer_files(asked: Asked, files: Sequence[Upload]) -> list[Weighed | DecodeRejected]:
    """Answer files, a few at a time, so that others have their turn; each has as long as one alone."""
    places = asyncio.Semaphore(_AT_A_TIME)

    async def answer(file: Upload) -> Weighed | DecodeRejected:
        async with places:
            now = time.monotonic()
            one = Asked(
                asked.service, asked.caller, asked.request_id, asked.endpoint, now, now + asked.service.deadline_s
            )
            try:
                return await _answer_file(one, file, "")
            except DecodeRejected as error:
                return error

    return await asyncio.gather(*map(answer, files))


def _entry(asked: Asked, weighed: Weighed, file: Upload, case: str) -> AuditEntry:
    return record(
        weighed,
        request_id=asked.request_id,
        key_id=asked.caller.key_id,
        endpoint=asked.endpoint,
        role="answer",
        case=pseudonym(asked.service.case_key, case) if case else None,
        input_sha256=file.sha256,
        latency_ms=asked.elapsed_ms,
    )


async def _commit(asked: Asked, entries: list[AuditEntry]) -> None:
    """Return when the answers are on the disk: none leaves before."""
    if not entries:
        return
    began = time.monotonic()
    try:
        await asyncio.wait_for(asyncio.wrap_future(asked.service.audit.commit(entries)), max(asked.ends_s - began, 1.0))
    except asyncio.TimeoutError:
        raise AuditUnavailable("The audit log does not take what it is given.") from None
    asked.service.metrics.audit_commit_seconds.observe(time.monotonic() - began)


def _count(asked: Asked, weighed: Weighed) -> None:
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


def _describe_all(asked: Asked, files: Sequence[Upload], found: Sequence[Weighed | DecodeRejected]) -> BatchAnswer:
    results = [_describe_file(asked, file, each) for file, each in zip(files, found, strict=True)]
    return BatchAnswer(
        request_id=asked.request_id,
        results=results,
        summary=_summarize([each.answer for each in results]),
        processing_time_ms=round(asked.elapsed_ms, 3),
    )


def _describe_file(asked: Asked, file: Upload, found: Weighed | DecodeRejected) -> FileAnswer:
    if isinstance(found, DecodeRejected):
        return FileAnswer(file=file.name, answer=None, error=f"The file was not read: {found}")
    return FileAnswer(file=file.name, answer=describe(found, asked.request_id, asked.elapsed_ms), error=None)


def _summarize(answers: Sequence[Answer | None]) -> Summary:
    labels = [answer.prediction for answer in answers if answer and answer.prediction is not None]
    confidences = [answer.confidence for answer in answers if answer and answer.confidence is not None]
    return Summary(
        files=len(answers),
        answered=len(labels),
        indeterminate=sum(answer is not None and answer.status == "indeterminate" for answer in answers),
        failed=sum(answer is None for answer in answers),
        counts={label: labels.count(label) for label in sorted(set(labels))},
        mean_confidence=sum(confidences) / len(confidences) if confidences else None,
    )
