"""Threads that compute, of which one that hangs is given up and replaced: a deadline frees its place."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from medvision.errors import DeadlinePassed

Result = TypeVar("Result")


class Workers:
    """So many threads that take one job after another."""

    def __init__(self, number: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._given_up = 0
        for _ in range(number):
            self._start()

    @property
    def given_up(self) -> int:
        """Return how many threads hang in a job that nobody waits for any more."""
        return self._given_up

    @property
    def waiting(self) -> int:
        """Return how many jobs no thread has begun."""
        return self._jobs.qsize()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Have a thread do a job."""
        future: Future[Result] = Future()
        self._jobs.put((future, job))
        return future

    async def run(self, job: Callable[[], Result], *, timeout_s: float) -> Result:
        """Return what a job gives; DeadlinePassed if it does not in time, in which case its thread is replaced."""
        future = self.submit(job)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), max(timeout_s, 0))
        except asyncio.TimeoutError:
            self._give_up(future)
            raise DeadlinePassed("The answer took too long. Try again.") from None

    def _give_up(self, future: Future[Any]) -> None:
        if not future.cancel() and not future.done():
            with self._lock:
                self._given_up += 1
            self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, name="medvision-worker", daemon=True).start()

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if future.set_running_or_notify_cancel():
                _do(future, job)
            del future, job
            with self._lock:
                # Somebody was started in the place of one that has come back after all.
                if self._given_up:
                    self._given_up -= 1
                    return


def _do(future: Future[Any], job: Callable[[], Any]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)
