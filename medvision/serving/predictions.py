"""The endpoints that answer images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from medvision.errors import DecodeRejected, MedvisionError
from medvision.serving.access import Caller, charge, needs, service_of
from medvision.serving.answering import Weighed, describe, describe_more
from medvision.serving.asked import Asked, begin
from medvision.serving.asking import answer_file, answer_files, commit, count, explain
from medvision.serving.documented import form_of, problems
from medvision.serving.schemas import AdvancedAnswer, Answer, BatchAnswer, FileAnswer, Summary
from medvision.serving.service import Service
from medvision.serving.uploads import MAX_FILE_BYTES, Upload, read_form

MAX_FILES = 32
_MAX_BATCH_BYTES = 64 << 20

_PROBLEMS = problems(400, 401, 403, 408, 413, 415, 429, 503, 504)

router = APIRouter(prefix="/api/v1", tags=["predict"])
CallerKey = Annotated[Caller, needs("predict")]


@router.post("/predict", responses=_PROBLEMS, openapi_extra=form_of("image"))
async def predict(request: Request, caller: CallerKey) -> Answer:
    """Answer one image: the most probable class, and the calibrated probability of each."""
    service = service_of(request)
    async with _one_file(request, service) as form:
        with service.admission.slot():
            (file,), case = form.files, form.fields.get("case_id", "")
            asked = begin(service, caller, request.state.request_id, "predict")
            weighed = await answer_file(asked, file, case)
            await commit(asked, [(weighed, file)], case)
    count(asked, weighed)
    return describe(weighed, asked.request_id, asked.elapsed_ms)


@router.post("/predict/advanced", responses=_PROBLEMS | problems(422), openapi_extra=form_of("image"))
async def predict_advanced(
    request: Request,
    caller: CallerKey,
    heat_map: Annotated[bool, Query(description="Also return where the model looked, to lay over the image.")] = False,
) -> AdvancedAnswer:
    """Answer one image, with all that a person needs to weigh the answer."""
    service = service_of(request)
    async with _one_file(request, service) as form:
        with service.admission.slot():
            (file,), case = form.files, form.fields.get("case_id", "")
            asked = begin(service, caller, request.state.request_id, "predict/advanced")
            weighed = await answer_file(asked, file, case)
            drawn = await explain(asked, weighed, file) if heat_map and not weighed.is_indeterminate else None
            await commit(asked, [(weighed, file)], case)
    count(asked, weighed)
    return describe_more(weighed, asked.request_id, asked.elapsed_ms, drawn)


@router.post("/predict/batch", responses=_PROBLEMS, openapi_extra=form_of("images", many=True))
async def predict_batch(request: Request, caller: CallerKey) -> BatchAnswer:
    """Answer many images; one that can't be answered is reported, and the others are answered."""
    service = service_of(request)
    async with read_form(
        request, service.admission, field="images", max_files=MAX_FILES, max_bytes=_MAX_BATCH_BYTES,
        timeout_s=service.deadline_s,
    ) as form:  # fmt: skip
        charge(service, caller, len(form.files) - 1, paid=1)
        with service.admission.slot():
            asked = begin(service, caller, request.state.request_id, "predict/batch")
            found = await answer_files(asked, form.files)
            answers = [(each, file) for each, file in zip(found, form.files, strict=True) if isinstance(each, Weighed)]
            await commit(asked, answers)
    service.metrics.batch_size.observe(len(form.files))
    for weighed, _ in answers:
        count(asked, weighed)
    return _describe_all(asked, form.files, found)


def _one_file(request: Request, service: Service) -> Any:
    return read_form(
        request, service.admission, field="image", max_files=1, max_bytes=MAX_FILE_BYTES, timeout_s=service.deadline_s
    )


def _describe_all(asked: Asked, files: Sequence[Upload], found: Sequence[Weighed | MedvisionError]) -> BatchAnswer:
    results = [_describe_file(asked, file, each) for file, each in zip(files, found, strict=True)]
    return BatchAnswer(
        request_id=asked.request_id,
        results=results,
        summary=_summarize([each.answer for each in results]),
        processing_time_ms=round(asked.elapsed_ms, 3),
    )


def _describe_file(asked: Asked, file: Upload, found: Weighed | MedvisionError) -> FileAnswer:
    if isinstance(found, DecodeRejected):
        return FileAnswer(file=file.name, answer=None, error=f"The file was not read: {found}")
    if isinstance(found, MedvisionError):
        return FileAnswer(file=file.name, answer=None, error=str(found))
    return FileAnswer(file=file.name, answer=describe(found, asked.request_id, asked.elapsed_ms), error=None)


def _summarize(answers: Sequence[Answer | None]) -> Summary:
    labels = [answer.prediction for answer in answers if answer and answer.prediction is not None]
    confidences = [answer.confidence for answer in answers if answer and answer.confidence is not None]
    return Summary(
        files=len(answers),
        answered=len(labels),
        indeterminate=sum(answer is not None and answer.status == "indeterminate" for answer in answers),
        second_reader=sum(answer is not None and answer.action == "second_reader" for answer in answers),
        failed=sum(answer is None for answer in answers),
        counts={label: labels.count(label) for label in sorted(set(labels))},
        mean_confidence=sum(confidences) / len(confidences) if confidences else None,
    )
