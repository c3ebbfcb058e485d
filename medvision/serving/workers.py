"""Threads that compute, of which one that hangs is given up and replaced: a deadline frees its place."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from medvision.errors import DeadlinePassed

Result = TypeVar("Result")


@dataclass
class _Job:
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    is_done: bool = False
    is_given_up: bool = False


class Workers:
    """So many threads that take one job after another."""

    def __init__(self, number: int) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
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

    async def run(self, work: Callable[[], Result], *, timeout_s: float) -> Result:
        """Return what a job gives; DeadlinePassed if it does not in time, in which case its thread is replaced."""
        job = _Job(work)
        self._jobs.put(job)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.future), max(timeout_s, 0))
        except asyncio.TimeoutError:
            self._give_up(job)
            raise DeadlinePassed("The answer took too long. Try again.") from None

    def _give_up(self, job: _Job) -> None:
        # One that no thread has begun is passed over when its turn comes.
        if job.future.cancel() or job.future.cancelled():
            return
        with self._lock:
            if job.is_done:
                return
            job.is_given_up = True
            self._given_up += 1
        self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, name="medvision-worker", daemon=True).start()

    def _work(self) -> None:
        while not self._do(self._jobs.get()):
            pass

    def _do(self, job: _Job) -> bool:
        """Do a job, and tell whether this thread was replaced meanwhile."""
        if not job.future.set_running_or_notify_cancel():
            return False
        try:
            job.future.set_result(job.work())
        except BaseException as error:
            job.future.set_exception(error)
        with self._lock:
            job.is_done = True
            self._given_up -= job.is_given_up
        return job.is_given_up
