"""Images decoded in processes of their own, which are killed and replaced when they die or hang."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pipe

import numpy as np

from medvision.errors import DeadlinePassed, DecodeRejected
from medvision.serving.decode_child import REJECTED
from medvision.serving.reading import Form, Forms

_LOG = logging.getLogger(__name__)


class Decoders:
    """Processes that decode images; threads share them, an image a process at a time."""

    def __init__(self, number: int = 2) -> None:
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        for _ in range(number):
            self._idle.put(_Child())

    def read(self, content: bytes, forms: Sequence[Form], formats: Sequence[str], *, timeout_s: float) -> Forms:
        """Return the image of a file in each form.

        Raises DecodeRejected: it is no image, or its decoder died of it. DeadlinePassed: it took too long.
        """
        end = time.monotonic() + timeout_s
        try:
            child = self._idle.get(timeout=timeout_s)
        except queue.Empty:
            raise DeadlinePassed("Too many images wait to be read. Try again.") from None
        try:
            answer = child.ask(content, forms, formats, timeout_s=end - time.monotonic())
        except (DeadlinePassed, DecodeRejected) as error:
            _LOG.error("!! A decoder is replaced: %s", error)
            child.end()
            child = _Child()
            raise
        finally:
            self._idle.put(child)
        if answer[:1] == REJECTED:
            raise DecodeRejected(answer[1:].decode(errors="replace"))
        return _split(answer, forms)

    def close(self) -> None:
        """End the processes that are idle; one that is at work ends when it hangs up."""
        while not self._idle.empty():
            self._idle.get().end()


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

    def ask(self, content: bytes, forms: Sequence[Form], formats: Sequence[str], *, timeout_s: float) -> bytes:
        try:
            self._pipe.send_bytes(json.dumps([forms, formats]).encode())
            self._pipe.send_bytes(content)
            if not self._pipe.poll(max(timeout_s, 0)):
                raise DeadlinePassed("The image took too long to read.")
            return self._pipe.recv_bytes(1 + sum(side * side * channels for _, side, channels in forms) + 4096)
        except (OSError, EOFError):
            raise DecodeRejected("the decoder ended while it read the image; expected a whole PNG or JPEG") from None

    def end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def _split(answer: bytes, forms: Sequence[Form]) -> Forms:
    images, start = {}, 1
    for form in forms:
        _, side, channels = form
        size = side * side * channels
        images[form] = np.frombuffer(answer, np.uint8, size, start).reshape(side, side, channels)
        start += size
    return images
