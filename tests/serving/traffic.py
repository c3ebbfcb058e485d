"""Clients that ask a service again and again, while something happens to it."""

import threading
import time
from dataclasses import dataclass

import httpx
from service_cases import image_bytes


@dataclass
class Seen:
    """What one request of a load came to: its status, 0 without an answer, the parsed body, and how long it took."""

    status: int
    body: dict
    seconds: float
    retry_after: str | None = None


class Load:
    """Clients that ask again and again on threads, until the block ends; ``seen`` are all answers, in their order."""

    def __init__(self, service, *, clients=2, pause_s=0.0, path="/api/v1/predict", content=None):
        self._service, self._pause_s, self._path = service, pause_s, path
        self._content = image_bytes() if content is None else content
        self.seen = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ask no more, and wait for what is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, n):
        """Wait until so many more answers have come."""
        wanted = len(self.seen) + n
        self._service.wait_until(lambda: len(self.seen) >= wanted, 60)

    @property
    def statuses(self):
        """Return each status that was seen."""
        return {each.status for each in self.seen}

    def _ask(self):
        client = self._service.client()
        while not self._stop.wait(self._pause_s):
            began = time.monotonic()
            try:
                answer = self._service.predict(self._content, path=self._path, client=client)
            except httpx.TransportError:
                self.seen.append(Seen(0, {}, time.monotonic() - began))
                continue
            seconds = time.monotonic() - began
            self.seen.append(Seen(answer.status_code, answer.json(), seconds, answer.headers.get("retry-after")))
