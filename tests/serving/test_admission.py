"""How much the service takes on at a time, and that whatever takes too long leaves its place to others."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from service_cases import form_type, image_bytes, multipart, padded
from traffic import Load


def stop_decoders(service):
    """Stop the decoders, so that every image takes longer than is allowed."""
    for number in service.decoders():
        os.kill(number, signal.SIGSTOP)


def ask_together(service, number, content=None):
    """Send so many images at the same time; return the answers, each with how long it took."""

    def ask(client):
        began = time.monotonic()
        return service.predict(content, client=client), time.monotonic() - began

    clients = [service.client() for _ in range(number)]
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(ask, clients))


def test_beyond_the_limit_429(serve):
    """What is beyond the limit is refused at once, with the time to ask again; probes are answered all the while."""
    service = serve(settings=["serving.max_in_flight=2", "serving.deadline_s=4"])
    stop_decoders(service)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask_together, service, 2)
        service.wait_until(lambda: service.get("/health").json()["in_flight"] == 2)
        refused = ask_together(service, 4)
        probes = [service.client().get(path) for path in ("/livez", "/readyz", "/health", "/metrics")]
        assert not first.done()
    assert [answer.status_code for answer, _ in refused] == [429] * 4
    assert all(int(answer.headers["retry-after"]) >= 1 for answer, _ in refused)
    assert max(seconds for _, seconds in refused) < 2
    assert [probe.status_code for probe in probes] == [200] * 4
    assert [answer.status_code for answer, _ in first.result()] == [504, 504]


def test_a_deadline_frees_the_place(serve):
    """After a hundred requests that took too long, as many as before are answered, and none holds a place."""
    service = serve(settings=["serving.max_in_flight=100", "serving.deadline_s=2"])
    assert {answer.status_code for answer, _ in ask_together(service, 8)} == {200}
    stop_decoders(service)
    late = ask_together(service, 100)
    assert {answer.status_code for answer, _ in late} == {504}
    print(f"refused after {max(seconds for _, seconds in late):.1f} s at most; the deadline is 2 s")
    service.wait_until(lambda: service.get("/health").json()["in_flight"] == 0, 10)
    service.wait_until(lambda: service.predict().status_code == 200, 10)
    assert {answer.status_code for answer, _ in ask_together(service, 8)} == {200}
    assert service.get("/readyz").status_code == 200 and "Traceback" not in service.log


@pytest.mark.slow
def test_a_decoder_that_takes_nothing(serve):
    """A decoder that does not even take a large file is given up like any that hangs."""
    service = serve(settings=["serving.deadline_s=2"])
    stop_decoders(service)
    late = ask_together(service, 2, padded(4 << 20))
    assert {answer.status_code for answer, _ in late} == {504} and max(seconds for _, seconds in late) < 6
    service.wait_until(lambda: service.predict(padded(4 << 20)).status_code == 200, 15)


@pytest.mark.slow
def test_bodies_that_are_held(serve):
    """Many bodies that come slowly fill no memory: beyond 256 MiB they are refused with 429, and all are let go."""
    service = serve(settings=["serving.max_in_flight=100", "serving.deadline_s=4"])
    body = multipart(padded(10 << 20))
    headers = f"Host: localhost\r\nContent-Type: {form_type()}\r\nContent-Length: {len(body)}\r\n\r\n"
    before = service.rss_bytes()

    def hold(connection):
        try:
            connection.sendall(f"POST /api/v1/predict HTTP/1.1\r\n{headers}".encode() + body[:-100])
            return int(connection.recv(4096).split()[1])
        except OSError:
            return 429

    connections = [service.connect() for _ in range(32)]
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(hold, connections))
    peak = service.rss_bytes() - before
    for connection in connections:
        connection.close()
    print(f"{statuses.count(429)} of 32 refused, {peak >> 20} MiB more")
    assert set(statuses) == {408, 429} and statuses.count(429) >= 6
    assert service.predict().status_code == 200


@pytest.mark.slow
def test_memory_is_flat(serve):
    """Under load, good and bad requests mixed, memory stays as it is."""
    service = serve()
    with Load(service, clients=4) as good, Load(service, clients=2, content=b"no image") as bad:
        service.wait_until(lambda: len(good.seen) > 500, 120)
        before, count = service.rss_bytes(), len(good.seen)
        service.wait_until(lambda: len(good.seen) > count + 3000, 300)
        growth = service.rss_bytes() - before
    assert good.statuses <= {200, 429} and bad.statuses <= {400, 429}
    print(f"{len(good.seen)} answers, grown by {growth >> 10} KiB")
    assert growth < 10 << 20


def test_images_of_any_size(service):
    """Images of any size and kind of pixel are answered one after another."""
    for side, form in ((1, "PNG"), (16, "PNG"), (300, "JPEG"), (2000, "JPEG")):
        assert service.predict(image_bytes(side=side, form=form)).status_code == 200
