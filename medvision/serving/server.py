"""The server around the application: uvicorn with deadlines for headers, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from medvision.serving.admission import Admission
from medvision.serving.problems import kind_of, render

_HEADERS_S = 5.0
_MAX_HEADER_BYTES = 16 << 10
# Of a body whose request was answered: closing at once could take the answer from a client that still sends.
_MAX_SURPLUS_BYTES = 1 << 20


class Patience(H11Protocol):
    """A connection that is closed when no request has come on it in time, however slowly one trickles in."""

    _guard: asyncio.TimerHandle | None = None
    _surplus_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait no longer once a request is whole to the end of its headers, and read little after its answer."""
        super().data_received(data)
        if self._is_answering():
            if self._guard:
                self._guard.cancel()
        elif self.conn.their_state is h11.SEND_BODY:
            self._surplus_bytes += len(data)
            if self._surplus_bytes > _MAX_SURPLUS_BYTES:
                self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._surplus_bytes = 0
        self._wait()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as a problem, as all that is wrong, and hang up."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            # The rest of a body that was answered already.
            self.transport.close()
            return
        answer = render(400, kind_of(400), "Expected a request as HTTP/1.1 has it.", uuid.uuid4().hex)
        headers = [*answer.raw_headers, (b"Connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(bytes(answer.body)),
            h11.EndOfMessage(),
        ):  # fmt: skip
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait(self) -> None:
        if self._guard:
            self._guard.cancel()
        self._guard = self.loop.call_later(_HEADERS_S, self._give_up)

    def _give_up(self) -> None:
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class Server(uvicorn.Server):
    """A server that ends with 0 when it is asked to: nothing is taken on any more, what is under way is finished."""

    def __init__(self, config: uvicorn.Config, admission: Admission) -> None:
        super().__init__(config)
        self._admission = admission

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals as a request to end; uvicorn would send them to itself again at the end, and die of them."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse from here on, and end when what is under way is finished."""
        self._admission.is_draining = True
        super().handle_exit(sig, frame)


def run_server(
    app: ASGIApp, admission: Admission, *, host: str, port: int, drain_s: float, certificate: Path | None,
    key: Path | None,
) -> None:  # fmt: skip
    """Serve until a signal asks to end; ``drain_s``: how long requests that are under way may go on then."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Patience,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    Server(config, admission).run()
