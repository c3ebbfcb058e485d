"""Threads that compute: what hangs is given up, and its place is free again."""

import asyncio
import threading
import time

import pytest

from medvision.errors import DeadlinePassed
from medvision.serving.workers import Workers


def test_a_job_gives_what_it_gives():
    """Results and errors of a job are those of the one who asked."""
    workers = Workers(2)

    async def ask():
        assert await workers.run(lambda: 6 * 7, timeout_s=5) == 42
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 / 0, timeout_s=5)
        return await asyncio.gather(*(workers.run(lambda number=number: number, timeout_s=5) for number in range(100)))

    assert asyncio.run(ask()) == list(range(100))


def test_no_more_threads_than_asked_for():
    """So many jobs run at a time, and the others wait."""
    workers, running, most = Workers(2), [], []

    def job():
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    async def ask():
        await asyncio.gather(*(workers.run(job, timeout_s=5) for _ in range(20)))

    asyncio.run(ask())
    assert max(most) == 2


def test_a_job_that_hangs_frees_its_place():
    """A hundred jobs that hang each end at their deadline, and then jobs are done as before."""
    workers, end = Workers(2), threading.Event()

    async def ask():
        hanging = [workers.run(lambda: end.wait(30), timeout_s=0.05) for _ in range(100)]
        outcomes = await asyncio.gather(*hanging, return_exceptions=True)
        assert all(isinstance(outcome, DeadlinePassed) for outcome in outcomes)
        began = time.monotonic()
        assert await asyncio.gather(*(workers.run(lambda: 1, timeout_s=5) for _ in range(100))) == [1] * 100
        return time.monotonic() - began

    assert asyncio.run(ask()) < 1
    end.set()


def test_who_comes_back_makes_room():
    """Once jobs that were given up have ended after all, there are as many threads as at first."""
    workers, end = Workers(2), threading.Event()
    before = threading.active_count()

    async def hang():
        jobs = [workers.run(lambda: end.wait(30), timeout_s=0.05) for _ in range(2)]
        await asyncio.gather(*jobs, return_exceptions=True)

    asyncio.run(hang())
    assert workers.given_up == 2
    end.set()
    deadline = time.monotonic() + 5
    while workers.given_up and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers.given_up == 0
    assert threading.active_count() == before


def test_what_was_not_begun_is_not_done():
    """A job whose time was up before its turn is left out."""
    workers, begun = Workers(1), []

    async def ask():
        slow = asyncio.ensure_future(workers.run(lambda: time.sleep(0.3), timeout_s=5))
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlinePassed):
            await workers.run(lambda: begun.append(1), timeout_s=0.05)
        await slow
        await workers.run(lambda: None, timeout_s=5)

    asyncio.run(ask())
    assert begun == []
