"""How much the service takes on at a time: requests that are answered, and bytes of bodies that are held."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from medvision.errors import NotServing, Overloaded

# Bodies of whoever has a key; a hundred at the limit of one would be a gigabyte.
_MAX_HELD_BYTES = 256 << 20


class Admission:
    """Counts what is under way, on the event loop's thread alone; what goes beyond the limits is refused at once."""

    def __init__(self, max_in_flight: int | None) -> None:
        self.limit = max_in_flight or max(8, 4 * (os.cpu_count() or 1))
        self.in_flight = 0
        self.is_draining = False
        self._held_bytes = 0

    def check(self) -> None:
        """Raise what ``slot`` would, before anything of a request is read."""
        if self.is_draining:
            raise NotServing("The service is about to stop. Try again.")
        if self.in_flight >= self.limit:
            raise Overloaded(f"The service answers {self.limit} requests at a time. Try again in a second.")

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a place among the requests that are answered; Overloaded if there is none, NotServing at the end."""
        self.check()
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def hold(self, n_bytes: int) -> None:
        """Count bytes of a body that are held in memory; Overloaded if there is no room for them."""
        if self._held_bytes + n_bytes > _MAX_HELD_BYTES:
            raise Overloaded("The service holds as many files as it can. Try again in a second.")
        self._held_bytes += n_bytes

    def release(self, n_bytes: int) -> None:
        """Count bytes that are held no more."""
        self._held_bytes -= n_bytes
