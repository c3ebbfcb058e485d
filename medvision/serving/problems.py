"""Errors as problem JSON (RFC 9457): a client learns what it can act on, and nothing of the server."""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from medvision.errors import DecodeRejected, Overloaded, RequestRefused, TryAgainLater

MEDIA_TYPE = "application/problem+json"


def problem(error: Exception, request_id: str) -> JSONResponse:
    """Return the answer for an error; of one that is not the client's, the log has the rest."""
    if isinstance(error, RequestRefused):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))} if isinstance(error, Overloaded) else {}
        return render(error.http_status, _kind(error), str(error), request_id, headers)
    if isinstance(error, DecodeRejected):
        return render(400, _kind(error), f"The file was not read: {_plain(error)}.", request_id)
    if isinstance(error, TryAgainLater):
        return render(503, _kind(error), "The service can't answer at present. Try again.", request_id)
    return render(500, "internal-error", "Something went wrong. The log has more, under this request id.", request_id)


def render(status: int, kind: str, detail: str, request_id: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return a problem as an answer."""
    body: dict[str, Any] = {
        "type": f"urn:medvision:problem:{kind}",
        "title": kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    challenge = {"WWW-Authenticate": 'Bearer realm="medvision"'} if status == 401 else {}
    return JSONResponse(body, status, headers={**challenge, **(headers or {})}, media_type=MEDIA_TYPE)


def kind_of(status: int) -> str:
    """Return the kind of a problem that only has a status."""
    return HTTPStatus(status).phrase.lower().replace(" ", "-")


def _kind(error: Exception) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()


def _plain(error: Exception) -> str:
    return str(error).rstrip(".")
