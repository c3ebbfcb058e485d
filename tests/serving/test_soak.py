"""Ten minutes of mixed traffic: no answer is lost, no error is made, and memory stays where it was."""

import threading
import time

import numpy as np
import pytest
from service_cases import form_type, image_bytes, multipart

from medvision.serving.audit_chain import check_chain
from medvision.serving.audit_place import parse_url
from medvision.serving.audit_rows import read_rows

pytestmark = pytest.mark.slow

SOAK_S = 600
MOST_GROWTH_BYTES = 10 << 20
# Of the readings, as many as a burst may be above the rest (Triton's rule for its own tests).
OUTLIERS = 0.05
IMAGES = [image_bytes(seed, side=256) for seed in range(8)]


class Visitors:
    """Clients of every kind, on threads; what they have seen is counted by kind and status."""

    def __init__(self, service):
        self._service, self._end = service, threading.Event()
        self.seen, self.wrong = {}, []
        kinds = (self._asks, self._asks, self._weighs, self._sends_many, self._sends_rubbish, self._hangs_up)
        self._threads = [threading.Thread(target=self._visit, args=(kind,), daemon=True) for kind in kinds]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _visit(self, kind):
        client, number = self._service.client(), 0
        while not self._end.is_set():
            number += 1
            status, expected = kind(client, IMAGES[number % len(IMAGES)])
            key = kind.__name__, status
            self.seen[key] = self.seen.get(key, 0) + 1
            if status not in expected:
                self.wrong.append(key)

    def _asks(self, client, image):
        return self._service.predict(image, client=client).status_code, {200, 429}

    def _weighs(self, client, image):
        answer = self._service.predict(
            image, path="/api/v1/predict/advanced", params={"heat_map": "true"}, data={"case_id": "7"}, client=client
        )
        time.sleep(0.2)
        return answer.status_code, {200, 429}

    def _sends_many(self, client, image):
        files = [("images", ("a.png", image)), ("images", ("b.png", b"rubbish")), ("images", ("c.png", IMAGES[0]))]
        time.sleep(0.5)
        return client.post("/api/v1/predict/batch", files=files).status_code, {200, 429}

    def _sends_rubbish(self, client, image):
        time.sleep(0.1)
        return self._service.predict(image[: len(image) // 2], client=client).status_code, {400, 429}

    def _hangs_up(self, client, image):
        """Leave in the middle of a body, and before the answer to another."""
        body = multipart(image)
        head = f"POST /api/v1/predict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self._service.key}\r\n"
        head += f"Content-Type: {form_type()}\r\nContent-Length: {len(body)}\r\n\r\n"
        for end in (len(body) // 2, len(body)):
            with self._service.connect() as connection:
                connection.sendall(head.encode() + body[:end])
        time.sleep(0.3)
        return 0, {0}


@pytest.mark.timeout(SOAK_S + 300)
def test_ten_minutes_leave_no_trace(service):
    """No request is answered otherwise than it should be, the log is whole, and memory does not grow."""
    before = len(service.audited())
    readings = []
    with Visitors(service) as visitors:
        end = time.monotonic() + SOAK_S
        while time.monotonic() < end:
            time.sleep(1)
            readings.append(service.rss_bytes())
    half = np.sort(readings[len(readings) // 2 :])
    kept = half[: round(len(half) * (1 - OUTLIERS))]
    growth = kept.max() - kept.mean()
    print({f"{kind} {status}": n for (kind, status), n in sorted(visitors.seen.items())})
    print(f"memory of the second half: {kept.mean() / 2**20:.1f} MiB, at most {growth / 2**20:.1f} more")
    assert visitors.wrong == []
    assert growth <= MOST_GROWTH_BYTES
    answered = visitors.seen["_asks", 200] + visitors.seen["_weighs", 200]
    assert len(service.audited()) - before >= answered + 2 * visitors.seen["_sends_many", 200]
    url = parse_url(f"sqlite:///{service.project.state / 'audit.db'}")
    check_chain(read_rows(url), [])
