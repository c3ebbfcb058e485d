"""The endpoints that tell of the service: whether it is up, what it serves, how it has been used."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Request, Response

from medvision.errors import NotServing
from medvision.records import Verdict
from medvision.serving.access import Caller, needs, service_of
from medvision.serving.documented import problems
from medvision.serving.metrics import CONTENT_TYPE
from medvision.serving.schemas import Alive, Health, ModelInfo, Ready, Usage
from medvision.serving.served import Served

router = APIRouter(tags=["status"])


@router.get("/livez")
async def livez() -> Alive:
    """Tell that the process runs."""
    return Alive(status="alive")


@router.get("/readyz", responses={503: {"model": Ready, "description": "Why requests are not answered."}})
async def readyz(request: Request, response: Response) -> Ready:
    """Tell whether requests are answered as they should be, with 503 and the reasons if not."""
    # The audit log may have to be tried, which takes its time.
    reasons = await asyncio.to_thread(service_of(request).reasons)
    response.status_code = 503 if reasons else 200
    return Ready(status="not_ready" if reasons else "ready", reasons=reasons)


@router.get("/health")
async def health(request: Request) -> Health:
    """Tell what a person wants to know at a glance; always 200."""
    service = service_of(request)
    present, reasons = service.roster.present, await asyncio.to_thread(service.reasons)
    problem = [present.problem] if present.problem and present.problem not in reasons else []
    return Health(
        status="not_ready" if reasons else "ready",
        reasons=[*reasons, *problem],
        version=present.champion.version if present.champion else None,
        in_flight=service.admission.in_flight,
        waiting=service.workers.waiting,
        uptime_s=round(time.monotonic() - service.started_s, 1),
    )


@router.get("/metrics", responses=problems(401, 403, 429), response_class=Response)
async def metrics(request: Request, caller: Annotated[Caller, needs("read")]) -> Response:
    """Return the figures of the service as Prometheus reads them."""
    service = service_of(request)
    service.metrics.in_flight.set(service.admission.in_flight)
    service.metrics.queue_depth.set(service.workers.waiting)
    service.metrics.alias_diverged.set(service.roster.present.is_diverged)
    return Response(service.metrics.render(), media_type=CONTENT_TYPE)


@router.get("/api/v1/usage", responses=problems(401, 403, 429))
async def usage(request: Request, caller: Annotated[Caller, needs("read")]) -> Usage:
    """Return what was asked and answered since the service was started."""
    return service_of(request).usage.told()


@router.get("/api/v1/model_info", responses=problems(401, 403, 429, 503))
async def model_info(request: Request, caller: Annotated[Caller, needs("info")]) -> ModelInfo:
    """Return which version answers, and what it was found to be able to do."""
    present = service_of(request).roster.present
    if present.champion is None:
        raise NotServing("No model may answer: none is champion.")
    challenger = present.challenger if service_of(request).roster.canary_percent else None
    return _describe(present.champion, challenger)


def _describe(served: Served, challenger: Served | None) -> ModelInfo:
    verdict = served.verdict
    return ModelInfo(
        name=served.found.name,
        version=served.version,
        number=served.found.number,
        package_digest=served.predictor.digest,
        engine=served.predictor.engine.name,
        classes=list(served.predictor.info.classes),
        formats=list(served.formats),
        policy=verdict.policy if verdict else None,
        verdict=verdict.state if verdict else None,
        grade=verdict.grade if verdict else None,
        validated_at=verdict.made_at if verdict else None,
        n_test_images=verdict.n if verdict else None,
        n_test_patients=verdict.n_patients if verdict else None,
        figures=verdict.figures if verdict else {},
        intervals=_intervals(verdict),
        latency_p95_ms=_latency(verdict),
        limits=_limits(served),
        canary=challenger.version if challenger else None,
    )


def _intervals(verdict: Verdict | None) -> dict[str, list[float]]:
    """Return the intervals by the names of their figures: value.accuracy is the rule on the accuracy."""
    outcomes = verdict.outcomes if verdict else ()
    return {
        outcome.rule.partition(".")[2]: [outcome.low, outcome.high]
        for outcome in outcomes
        if outcome.low is not None and outcome.high is not None
    }


def _latency(verdict: Verdict | None) -> float | None:
    outcomes = verdict.outcomes if verdict else ()
    return next((outcome.found for outcome in outcomes if outcome.rule == "latency_p95_ms"), None)


def _limits(served: Served) -> list[str]:
    verdict, limits = served.verdict, []
    if served.never_ruled_out:
        names = ", ".join(served.never_ruled_out)
        limits.append(f"Val had too few cases to rule out {names}: most answers ask for a second reader.")
    if verdict is None:
        return ["This model has no valid verdict: it answers in development only.", *limits]
    if verdict.n_patients is None:
        limits.append("Patients are not known: intervals count images.")
    return [*limits, *(outcome.message for outcome in verdict.outcomes if outcome.state == "insufficient_evidence")]
