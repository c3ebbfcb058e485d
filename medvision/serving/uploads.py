"""Files out of a multipart body, in memory alone: limits hold while it streams in, and nothing touches a disk."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from medvision.errors import BodyTooLarge, BodyTooSlow, MediaUnsupported, RequestRefused
from medvision.serving.admission import Admission

MAX_FILE_BYTES = 10 << 20
# The bounds of a multipart body, and the few fields beside the files.
_AROUND_BYTES = 64 << 10
_MAX_FIELDS = 8
MAX_CASE_LENGTH = 256


@dataclass(frozen=True)
class Upload:
    """What a person has called a file, which is repeated to them alone, and its bytes."""

    name: str
    content: bytes
    sha256: str


@dataclass(frozen=True)
class ReceivedForm:
    """The files and the other fields of a body."""

    files: tuple[Upload, ...]
    fields: dict[str, str]


class _InMemory(MultiPartParser):
    # starlette would write what is larger than this to a temporary file: images of patients.
    spool_max_size: ClassVar[int] = 1 << 40  # type: ignore[misc]


@asynccontextmanager
async def read_form(
    request: Request, admission: Admission, *, field: str, max_files: int, max_bytes: int, timeout_s: float
) -> AsyncIterator[ReceivedForm]:
    """Yield the files of a field and the text fields of a multipart body.

    Raises MediaUnsupported, BodyTooLarge, BodyTooSlow, Overloaded, or RequestRefused for what is no such body.
    """
    _check_headers(request, max_bytes)
    body = _Body(request, admission, max_bytes)
    try:
        yield await _collect(await _receive(request, body, max_files, timeout_s), field, max_files)
    finally:
        admission.release(body.size)


def _check_headers(request: Request, max_bytes: int) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise MediaUnsupported("Expected a body of multipart/form-data.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaUnsupported("Expected a body that is not compressed.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:18]) > max_bytes + _AROUND_BYTES:
        raise _too_large(max_bytes)


class _Body:
    """The chunks of a body, counted as they come."""

    def __init__(self, request: Request, admission: Admission, max_bytes: int) -> None:
        self._request, self._admission, self._max_bytes = request, admission, max_bytes
        self.size = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._request.stream():
            if self.size + len(chunk) > self._max_bytes + _AROUND_BYTES:
                raise _too_large(self._max_bytes)
            self._admission.hold(len(chunk))
            self.size += len(chunk)
            yield chunk


async def _receive(request: Request, body: _Body, max_files: int, timeout_s: float) -> FormData:
    try:
        return await asyncio.wait_for(_parse(request, body, max_files), timeout_s)
    except asyncio.TimeoutError:
        raise BodyTooSlow(f"The body did not arrive within {timeout_s:g} seconds.") from None
    except ClientDisconnect:
        raise RequestRefused("The body ended before its time.") from None


async def _parse(request: Request, body: _Body, max_files: int) -> FormData:
    try:
        # One more than is allowed, so that the refusal can be ours.
        parser = _InMemory(request.headers, body.chunks(), max_files=max_files + 1, max_fields=_MAX_FIELDS)
        return await parser.parse()
    except MultiPartException as error:
        raise RequestRefused(f"The body is no form: {error.message}") from None
    except (KeyError, ValueError, UnicodeDecodeError):
        raise RequestRefused("The body is no form: expected a boundary, and parts with names.") from None


async def _collect(form: FormData, field: str, max_files: int) -> ReceivedForm:
    parts = form.multi_items()
    found = [part for name, part in parts if name == field and isinstance(part, UploadFile)]
    others = [name for name, part in parts if isinstance(part, UploadFile) and name != field]
    if others or not found:
        raise RequestRefused(f"Expected the file in a field called {field}, with a file name.")
    if len(found) > max_files:
        raise RequestRefused("Expected one file." if max_files == 1 else f"Expected {max_files} files at most.")
    texts = [(name, part) for name, part in parts if isinstance(part, str)]
    fields = dict(texts)
    if len(fields) < len(texts):
        raise RequestRefused("Expected each field once.")
    if len(fields.get("case_id", "")) > MAX_CASE_LENGTH:
        raise RequestRefused(f"Expected a case_id of {MAX_CASE_LENGTH} characters at most.")
    _check_texts([*fields, *fields.values(), *(part.filename or "" for part in found)])
    return ReceivedForm(tuple([await _upload(part) for part in found]), fields)


def _check_texts(texts: Sequence[str]) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        # Halves of characters, which UTF-7 lets through, can neither be hashed nor answered with.
        raise RequestRefused("The body is no form: expected names and fields of whole characters.") from None


async def _upload(part: UploadFile) -> Upload:
    content = await part.read()
    if len(content) > MAX_FILE_BYTES:
        raise _too_large(MAX_FILE_BYTES)
    return Upload(part.filename or "", content, hashlib.sha256(content).hexdigest())


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"Expected {max_bytes >> 20} MiB at most. Send a smaller image, or fewer at a time.")
