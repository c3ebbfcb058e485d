"""The prediction service as an ASGI application."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import medvision
from medvision.errors import MedvisionError, RequestRefused
from medvision.serving import predictions, status
from medvision.serving.border import Border
from medvision.serving.problems import kind_of, problem, render
from medvision.serving.service import Service

_LOG = logging.getLogger(__name__)
_PAGE = Path(__file__).parent / "page"
_ABOUT = (
    "Answers medical images with the champion of a model registry. Each answer was written to an audit log before it "
    "was sent. It supports a reader, and does not replace one."
)


def build_app(service: Service, *, is_encrypted: bool = False) -> ASGIApp:
    """Return the application that answers for a service."""
    app = FastAPIOffline(
        title="medvision", version=medvision.__version__, description=_ABOUT, redoc_url=None, static_url="/docs/static"
    )
    # It writes a line for each odd byte that strangers send.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    app.state.service = service
    app.include_router(status.router)
    app.include_router(predictions.router)
    app.add_exception_handler(MedvisionError, _on_ours)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_unknown)
    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    app.add_api_route("/", _page, include_in_schema=False)
    return Border(app, service, is_encrypted=is_encrypted)


async def _page() -> FileResponse:
    return FileResponse(_PAGE / "index.html")


async def _on_ours(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service
    service.metrics.error(type(error).__name__)
    if not isinstance(error, RequestRefused):
        _LOG.warning("Request %s: %s", request.state.request_id, type(error).__name__)
    return problem(error, request.state.request_id)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = kind_of(error.status_code)
    return render(
        error.status_code, kind, f"{kind.capitalize().replace('-', ' ')}.", request.state.request_id,
        dict(error.headers or {}),
    )  # fmt: skip


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    names = sorted({str(each["loc"][-1]) for each in error.errors()})
    detail = f"Not a value that is allowed: {', '.join(name for name in names if name.isidentifier())}."
    return render(422, kind_of(422), detail, request.state.request_id)


async def _on_unknown(request: Request, error: Exception) -> Response:
    # The error goes on from here to the border, which logs it.
    return problem(error, request.state.request_id)
