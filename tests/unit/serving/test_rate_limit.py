"""The rate limit: a minute's worth at once, then evenly, each key by itself."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from medvision.serving.rate_limit import RateLimit


class Clock:
    """A clock that a test turns."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limit(clock):
    return RateLimit(clock)


def drain(limit, key, per_minute):
    """Take what there is; return how many were allowed."""
    count = 0
    while limit.take(key, per_minute) == 0.0:
        count += 1
    return count


def test_a_minutes_worth(limit):
    """A new key may send a minute's worth at once, and not one more."""
    assert drain(limit, "a", 60) == 60


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600, 100_000])
def test_the_wait_is_what_is_needed(limit, clock, per_minute):
    """After the wait that was told, and not much before, one more is allowed."""
    drain(limit, "a", per_minute)
    wait = limit.take("a", per_minute)
    assert wait == pytest.approx(60 / per_minute)
    clock.now += wait * 0.99
    assert limit.take("a", per_minute) > 0
    clock.now += wait * 0.011
    assert limit.take("a", per_minute) == 0.0


def test_the_rate_holds(limit, clock):
    """Over an hour of asking all the time, a key gets its first minute's worth and its rate, and no more."""
    allowed = 0
    for _ in range(36_000):
        allowed += limit.take("a", 60) == 0.0
        clock.now += 0.1
    assert 60 + 3599 <= allowed <= 60 + 3600


def test_a_pause_fills_no_more_than_a_minute(limit, clock):
    """After a day a key may send a minute's worth, as at its start."""
    drain(limit, "a", 60)
    clock.now += 86_400
    assert drain(limit, "a", 60) == 60


def test_a_refusal_costs_nothing(limit, clock):
    """Who keeps asking waits no longer for it."""
    drain(limit, "a", 60)
    waits = {limit.take("a", 60) for _ in range(100)}
    assert len(waits) == 1


def test_keys_do_not_share(limit):
    """What one key has used up is there for another."""
    drain(limit, "a", 60)
    assert drain(limit, "b", 60) == 60


def test_a_batch_costs_its_images(limit):
    """A batch is allowed as a whole or not at all."""
    assert limit.take("a", 60, cost=50) == 0.0
    assert limit.take("a", 60, cost=20) == pytest.approx(10)
    assert limit.take("a", 60, cost=10) == 0.0


def test_a_batch_above_a_minutes_worth_is_paid_for_later(limit, clock):
    """A batch of more than a minute's worth is allowed from a full bucket, and the rest is waited for after it."""
    assert limit.take("a", 60, cost=180) == 0.0
    assert limit.take("a", 60) == pytest.approx(121)
    clock.now += 121
    assert limit.take("a", 60) == 0.0


@pytest.mark.parametrize(("per_minute", "n"), [(1, 2), (30, 30), (30, 32), (60, 32)])
def test_a_batch_whose_first_image_is_paid_apart(limit, clock, per_minute, n):
    """A request that pays for one image before the others are counted is let in, by whoever waits as long as told."""
    drain(limit, "a", per_minute)
    waits = []
    while 0.0 not in waits and len(waits) < 9:
        waits.append(limit.take("a", per_minute) or limit.take("a", per_minute, cost=n - 1, paid=1))
        clock.now += waits[-1] + 1e-6
    # Drained, it waits for one image first, and then for the batch.
    assert len(waits) <= 3


def test_threads_get_no_more_together():
    """Of 8 threads that ask at the same time, so many are allowed as of one."""
    limit, interval = RateLimit(Clock()), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: drain(limit, "a", 20_000), range(8))) == 20_000
    finally:
        sys.setswitchinterval(interval)
