"""The border of the service: every request gets an id, a time, its headers, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medvision.errors import MisdirectedRequest, NotServing, RequestRefused
from medvision.serving.problems import problem
from medvision.serving.service import Service

_LOG = logging.getLogger(__name__)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
# What has to have a place among those that are answered.
_ADMITTED = "/api/v1/predict"
_STRICT = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger's page has a script and styles of its own in it.
_DOCS = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_POLICIES = {"/": _PAGE, "/docs": _DOCS}


class Border:
    """An ASGI application around the service's own."""

    def __init__(self, app: ASGIApp, service: Service, *, is_encrypted: bool) -> None:
        self._app, self._service = app, service
        self._headers = dict(_HEADERS)
        if is_encrypted:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; anything that goes wrong is a problem with an id, never a stack trace."""
        if scope["type"] != "http":
            return
        began, request_id, status = time.perf_counter(), uuid.uuid4().hex, [0]
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                self._add_headers(message, scope["path"], request_id)
            await send(message)

        try:
            if not self._is_for_us(scope):
                raise MisdirectedRequest("The host that was asked for is not this one.")
            if scope["path"].startswith(_ADMITTED):
                # Here, where it costs least: a flood must not slow down those who have a place.
                self._service.admission.check()
            await self._app(scope, receive, send_on)
        except RequestRefused as error:
            self._service.metrics.error(type(error).__name__)
            await problem(error, request_id)(scope, receive, send_on)
        except asyncio.CancelledError:
            # At the end of its time to finish; uvicorn would log the whole stack.
            if not status[0]:
                await problem(NotServing("The service has stopped."), request_id)(scope, receive, send_on)
        except Exception as error:
            self._service.metrics.error("InternalError")
            _log(error, request_id)
            if not status[0]:
                await problem(error, request_id)(scope, receive, send_on)
        seconds = time.perf_counter() - began
        self._service.metrics.request(_endpoint(scope), scope["method"], status[0] or 500, seconds)

    def _add_headers(self, message: Message, path: str, request_id: str) -> None:
        headers = MutableHeaders(scope=message)
        headers.update({**self._headers, "X-Request-ID": request_id})
        headers.setdefault("Content-Security-Policy", _POLICIES.get(path, _STRICT))

    def _is_for_us(self, scope: Scope) -> bool:
        """Tell whether a request names this service: a page from elsewhere must not reach one that has no keys.

        Such a page may call itself by this host's name, or have a browser send its form here under its own. A link
        that somebody follows has no origin.
        """
        if not self._service.hosts:
            return True
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        origin = headers.get("origin", host).lower().rpartition("://")[2]
        return name in self._service.hosts and origin == host


def _endpoint(scope: Scope) -> str:
    """Return the template of the route, so that whatever strangers ask for is one."""
    route: Any = scope.get("route")
    return getattr(route, "path", "") or (_ADMITTED if scope["path"].startswith(_ADMITTED) else "other")


def _log(error: Exception, request_id: str) -> None:
    """Log where it went wrong, without the values that were at hand: they may be a patient's."""
    places = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(
        f"{place.name} ({place.filename.rpartition('/')[2]}:{place.lineno})" for place in reversed(places)
    )
    _LOG.error("!! Request %s: %s in %s", request_id, type(error).__name__, where)
