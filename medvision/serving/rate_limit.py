"""How much an API key may ask for in a minute: one token bucket a key.

A full bucket holds a minute's worth and fills evenly, so that after a pause a key may send a minute's worth at once.
Memory is bounded by the number of keys: whoever has none is refused before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """The buckets of all keys, for any number of threads; ``clock`` returns seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, per_minute: int, *, cost: int = 1, paid: int = 0) -> float:
        """Take ``cost`` tokens; return 0.0, or how many seconds to wait, and then nothing was taken.

        What costs more than a whole bucket, with the tokens that were ``paid`` for the same request a moment ago, is
        allowed when the bucket was full, and paid for by what comes after.
        """
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.get(key_id, (float(per_minute), now))
            tokens = min(per_minute, tokens + (now - since) * per_minute / 60)
            missing = min(cost, per_minute - paid) - tokens
            if missing > 0:
                # Whoever asks again pays again for what was paid.
                return (missing + paid) * 60 / per_minute
            self._buckets[key_id] = (tokens - cost, now)
            return 0.0
