"""What a body may be: limits hold while it streams in, whatever is sent, and nothing of it touches a disk."""

import contextlib
import os
import time
import zlib
from pathlib import Path

import pytest
from service_cases import form_type, image_bytes, multipart, padded

LIMIT = 10 << 20
# What the kernel holds for both ends of a connection; it was sent, and nobody has read it.
BUFFERS = 8 << 20
GROWTH = 5 << 20
HEAD = "POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n"


def head(service, *lines):
    """Return the beginning of a request with one image."""
    return (HEAD.format(key=service.key, kind=form_type()) + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


def status_of(connection):
    """Return the status of the answer that comes; 0 if the connection ends without one."""
    with contextlib.suppress(ConnectionError):
        answer = connection.recv(65536)
        return int(answer.split()[1]) if answer else 0
    return 0


def send_until_refused(connection, block, at_most):
    """Send a block again and again; return how many bytes went until the other end hung up."""
    sent = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        while sent < at_most:
            connection.sendall(block)
            sent += len(block)
    return sent


def test_a_file_at_the_limit(service):
    """A file of 10 MiB is answered; one of a byte more is refused with 413."""
    assert service.predict(padded(LIMIT)).status_code == 200
    refused = service.predict(padded(LIMIT + 1))
    assert refused.status_code == 413 and "10 MiB" in refused.json()["detail"]


def test_a_large_body_is_refused_by_its_length(service):
    """A body that says to be too large is refused before any of it is sent."""
    with service.connect() as connection:
        connection.sendall(head(service, f"Content-Length: {LIMIT + (1 << 20)}"))
        assert status_of(connection) == 413


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_body_without_end(service, is_chunked):
    """A body beyond the limit is refused while it comes, and not read to its end."""
    block = bytes(1 << 16)
    lines, chunk = ("Transfer-Encoding: chunked",), b"%x\r\n%s\r\n" % (len(block), block)
    if not is_chunked:
        lines, chunk = (f"Content-Length: {1 << 40}",), block
    with service.connect() as connection:
        connection.settimeout(8)
        connection.sendall(head(service, *lines))
        start = multipart(b"").partition(b"\r\n--BOUNDARY--")[0]
        connection.sendall(b"%x\r\n%s\r\n" % (len(start), start) if is_chunked else start)
        sent = send_until_refused(connection, chunk, 200 << 20)
    assert sent < LIMIT + (1 << 20) + BUFFERS
    assert service.predict().status_code == 200


def send_small_chunks(service, number):
    """Send a body in chunks of one byte; return the status."""
    with service.connect() as connection:
        connection.sendall(head(service, "Transfer-Encoding: chunked"))
        body = multipart(image_bytes())
        rest = multipart(b"\0" * (number - len(body)))
        content = b"".join(b"1\r\n%c\r\n" % byte for byte in rest)
        with contextlib.suppress(ConnectionError):
            connection.sendall(content + b"0\r\n\r\n")
        return status_of(connection)


def test_many_small_chunks(service):
    """Bodies of 20,000 chunks of a byte leave no memory behind."""
    send_small_chunks(service, 20_000)
    before = service.rss_bytes()
    statuses = {send_small_chunks(service, 20_000) for _ in range(3)}
    assert statuses == {400} and service.rss_bytes() - before < GROWTH


@pytest.mark.slow
def test_a_million_small_chunks(service):
    """Nor do bodies of a million, one after another; each is answered or refused in time."""
    send_small_chunks(service, 1_000_000)
    before = service.rss_bytes()
    for _ in range(5):
        assert send_small_chunks(service, 1_000_000) in (400, 408)
    growth = service.rss_bytes() - before
    print(f"grown by {growth >> 10} KiB, {GROWTH >> 10} KiB are allowed")
    assert growth < GROWTH


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "GZIP"])
def test_a_compressed_body(service, encoding):
    """A compressed body is refused with 415: what it grows to can't be known."""
    content = zlib.compress(multipart(bytes(LIMIT)))
    headers = {"Content-Encoding": encoding, "Content-Type": form_type()}
    assert service.own.post("/api/v1/predict", content=content, headers=headers).status_code == 415


BROKEN = {
    "no boundary": ("multipart/form-data", multipart(b"x")),
    "another boundary": (form_type("OTHER"), multipart(b"x")),
    "cut": (form_type(), multipart(image_bytes())[:-30]),
    "empty": (form_type(), b""),
    "only its end": (form_type(), b"--BOUNDARY--\r\n"),
    "a part without a name": (form_type(), b"--BOUNDARY\r\nX: y\r\n\r\nz\r\n--BOUNDARY--\r\n"),
    "a part without headers": (form_type(), b"--BOUNDARY\r\n\r\nz\r\n--BOUNDARY--\r\n"),
    "a long boundary": (form_type("B" * 8000), multipart(b"x", boundary="B" * 8000)),
    "a long header": (form_type(), multipart(b"x", name="n" * 60_000)),
    "many headers": (form_type(), multipart(b"x").replace(b"\r\n\r\n", b"\r\n" + b"A: b\r\n" * 5000 + b"\r\n", 1)),
    "many parts": (form_type(), multipart(b"x").partition(b"--BOUNDARY--")[0] * 2000 + b"--BOUNDARY--\r\n"),
    "two images": (form_type(), multipart(b"x").partition(b"--BOUNDARY--")[0] * 2 + b"--BOUNDARY--\r\n"),
    "a bare carriage return": (form_type(), multipart(b"x").replace(b"\r\n", b"\r")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_form(service, name):
    """A body that is no form is the client's mistake, and the service says so at once."""
    kind, content = BROKEN[name]
    began = time.monotonic()
    answer = service.own.post("/api/v1/predict", content=content, headers={"Content-Type": kind})
    assert answer.status_code in (400, 413) and answer.headers["content-type"] == "application/problem+json", name
    assert time.monotonic() - began < 3


def test_nothing_is_written_to_a_disk(serve, tmp_path):
    """An image is in no file at any time, however large: neither in one with a name nor in one without."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    service = serve(environment={"TMPDIR": str(folder)})
    body = multipart(padded(LIMIT))
    with service.connect() as connection:
        connection.sendall(
            (HEAD.format(key="", kind=form_type()) + f"Content-Length: {len(body)}\r\n\r\n").encode() + body[: 9 << 20]
        )
        service.wait_until(lambda: service.get("/livez").status_code == 200)
        time.sleep(0.5)
        held = [os.readlink(path) for path in Path(f"/proc/{service.pid}/fd").iterdir() if path.is_symlink()]
        assert not [name for name in held if "(deleted)" in name and "SQLite" not in name], held
        assert list(folder.iterdir()) == []
        connection.sendall(body[9 << 20 :])
        assert status_of(connection) == 200
    assert list(folder.iterdir()) == []


def test_a_slow_body(serve):
    """A body that does not come in time is answered with 408, and so is one of which nothing comes."""
    service = serve(settings=["serving.deadline_s=1"])
    for part in (b"", multipart(image_bytes())[:100]):
        with service.connect() as connection:
            began = time.monotonic()
            connection.sendall(head(service, "Content-Length: 5000") + part)
            assert status_of(connection) == 408
            assert 0.8 < time.monotonic() - began < 5


def test_slow_headers(service):
    """A connection on which no whole request comes is closed within some seconds, and holds nobody up."""
    slow = [service.connect() for _ in range(200)]
    began = time.monotonic()
    for connection in slow[::2]:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
    ended, seconds = set(), []
    while len(ended) < len(slow) and time.monotonic() - began < 20:
        for number, connection in enumerate(slow):
            if number not in ended and not _is_open(connection, b"X: y\r\n" if number % 2 == 0 else b""):
                ended.add(number)
        asked = time.monotonic()
        assert service.predict().status_code == 200
        seconds.append(time.monotonic() - asked)
    for connection in slow:
        connection.close()
    print(f"closed after {time.monotonic() - began:.1f} s; a healthy client waited {max(seconds):.3f} s at most")
    assert len(ended) == len(slow) and time.monotonic() - began < 15


def _is_open(connection, trickle):
    connection.setblocking(False)
    try:
        if trickle:
            connection.send(trickle)
        return connection.recv(4096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_a_body_that_breaks_after_its_answer(service):
    """What is no HTTP any more behind an answer ends the connection, and nothing is wrong with the service."""
    with service.connect() as connection:
        connection.sendall(b"POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert status_of(connection) == 405
        connection.sendall(b"no chunk\r\n" * 9)
        # What is left of the answer may still come.
        while connection.recv(65536):
            pass
    assert "Traceback" not in service.log


def test_headers_without_end(service):
    """Headers that go on for ever are refused while they come."""
    with service.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        sent = send_until_refused(connection, b"X-Header: " + b"x" * 1000 + b"\r\n", 100 << 20)
    assert sent < BUFFERS
