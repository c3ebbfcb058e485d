"""Images decoded in processes of their own, which are killed and replaced when they die or hang."""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import Pipe

import numpy as np

from medvision.errors import DeadlinePassed, DecodeRejected, TryAgainLater
from medvision.serving.decode_child import REJECTED
from medvision.serving.reading import Form, Forms

_LOG = logging.getLogger(__name__)


class Decoders:
    """Processes that decode images; threads share them, an image a process at a time."""

    def __init__(self, number: int = 2) -> None:
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._lock, self._is_closed = threading.Lock(), False
        self._children = {_Child() for _ in range(number)}
        for child in self._children:
            self._idle.put(child)

    def read(self, content: bytes, forms: Sequence[Form], formats: Sequence[str], *, timeout_s: float) -> Forms:
        """Return the image of a file in each form.

        Raises DecodeRejected: it is no image, or its decoder died of it. DeadlinePassed: it took too long.
        TryAgainLater: there is no decoder, and none could be started.
        """
        end = time.monotonic() + timeout_s
        try:
            # One whose time was up before its turn came takes no decoder, which would be replaced for nothing.
            child = self._idle.get(timeout=timeout_s) if timeout_s > 0 else None
        except queue.Empty:
            child = None
        if child is None:
            raise DeadlinePassed("Too many images wait to be read. Try again.")
        try:
            if child.has_ended:
                # Of an earlier image, or of nothing: this one is not to blame.
                child = self._replace(child)
            answer = child.ask(content, forms, formats, timeout_s=end - time.monotonic())
        except (DeadlinePassed, DecodeRejected) as error:
            _LOG.error("!! A decoder is replaced: %s", error)
            child = self._replace(child)
            raise
        except OSError:
            raise TryAgainLater("No decoder could be started.") from None
        finally:
            self._idle.put(child)
        if answer[:1] == REJECTED:
            raise DecodeRejected(answer[1:].decode(errors="replace"))
        return _split(answer, forms)

    def close(self) -> None:
        """End the processes, those that are at work, too: whoever waits for one that hangs must be able to end."""
        with self._lock:
            self._is_closed = True
            for child in self._children:
                child.kill()

    def _replace(self, child: _Child) -> _Child:
        child.end()
        with self._lock:
            if self._is_closed:
                return child
            try:
                fresh = _Child()
            except OSError as error:
                _LOG.error("!! No decoder could be started: %s", error.strerror)
                return child
            self._children.discard(child)
            self._children.add(fresh)
        return fresh


class _Child:
    def __init__(self) -> None:
        self._pipe, far = Pipe()
        command = [sys.executable, "-m", "medvision.serving.decode_child", str(far.fileno())]
        # A thread of its own for each number that it adds would count against its memory.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, pass_fds=[far.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        far.close()
        # The same pipe, for what only a socket can be told.
        self._socket = socket.socket(fileno=os.dup(self._pipe.fileno()))

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, content: bytes, forms: Sequence[Form], formats: Sequence[str], *, timeout_s: float) -> bytes:
        self._limit_waits(timeout_s)
        try:
            self._pipe.send_bytes(json.dumps([forms, formats]).encode())
            self._pipe.send_bytes(content)
            if not self._pipe.poll(max(timeout_s, 0)):
                raise DeadlinePassed("The image took too long to read.")
            return self._pipe.recv_bytes(1 + sum(side * side * channels for _, side, channels in forms) + 4096)
        except BlockingIOError:
            raise DeadlinePassed("The image took too long to read.") from None
        except (OSError, EOFError):
            raise DecodeRejected("the decoder ended while it read the image; expected a whole PNG or JPEG") from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        self.kill()
        self._pipe.close()
        self._socket.close()

    def _limit_waits(self, timeout_s: float) -> None:
        """Let nothing wait longer for a process that has stopped in the middle of what it is sent, or sends."""
        microseconds = max(int(1e6 * timeout_s), 1)
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", *divmod(microseconds, 1_000_000)))


def _split(answer: bytes, forms: Sequence[Form]) -> Forms:
    images, start = {}, 1
    for form in forms:
        _, side, channels = form
        size = side * side * channels
        images[form] = np.frombuffer(answer, np.uint8, size, start).reshape(side, side, channels)
        start += size
    return images
