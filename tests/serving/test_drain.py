"""How the service ends: what is under way is answered, nothing new is taken on, and the exit status is 0."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from registry_cases import NAME
from service_cases import form_type, free_port, image_bytes, multipart, read_audit, start_service
from traffic import Load


@pytest.mark.slow
def test_the_command(project):
    """`medvision serve` says where it answers, answers, and ends with 0 when it is asked to."""
    port = free_port()
    command = [
        Path(sys.executable).with_name("medvision"),
        "serve",
        f"{NAME}@champion",
        "--no-auth",
        "--port",
        str(port),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MEDVISION_"))}
    with subprocess.Popen(command, cwd=project.folder, env=kept, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        assert f"{NAME} 1 answers on http://127.0.0.1:{port}" in said
        files = {"image": ("a.png", image_bytes())}
        for _ in range(100):
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/api/v1/predict", files=files, timeout=30)
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    assert answer.status_code == 200
    assert [entry["request_id"] for entry in read_audit(project)] == [answer.json()["request_id"]]


def test_what_is_under_way_is_answered(serve):
    """Of requests that were begun when the service is asked to end, each is answered and audited; it exits with 0."""
    service = serve(settings=["serving.max_in_flight=100"])
    with Load(service, clients=8) as load:
        load.wait_for(30)
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    # A connection that is closed while a request is being sent has lost nothing: it was not begun.
    assert load.statuses <= {200, 503, 0}
    assert load.seen[-1].status == 0
    logged = {entry["request_id"] for entry in read_audit(service.project)}
    assert {each.body["request_id"] for each in load.seen if each.status == 200} == logged
    assert "Traceback" not in service.log


def test_begun_requests(serve):
    """Requests whose image is being read when the service is asked to end are answered with 200."""
    service = serve(settings=["serving.max_in_flight=100"])
    decoders = service.decoders()
    for number in decoders:
        os.kill(number, signal.SIGSTOP)
    clients = [service.client() for _ in range(8)]
    probe = service.client()
    probe.get("/livez")
    with ThreadPoolExecutor(8) as pool:
        under_way = [pool.submit(service.predict, client=client) for client in clients]
        service.wait_until(lambda: probe.get("/health").json()["in_flight"] == 8)
        service.signal(signal.SIGTERM)
        time.sleep(0.5)
        for number in decoders:
            os.kill(number, signal.SIGCONT)
        assert [each.result().status_code for each in under_way] == [200] * 8
    assert service.wait() == 0
    assert len(read_audit(service.project)) == 8


def test_not_ready_while_it_ends(serve):
    """As soon as it is asked to end the service says that it is not ready, and takes on nothing new."""
    service = serve(settings=["serving.deadline_s=3"])
    os.kill(service.decoders()[0], signal.SIGSTOP)
    os.kill(service.decoders()[1], signal.SIGSTOP)
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ThreadPoolExecutor(1) as pool, service.connect() as open_before, socket.socket() as late:
        pool.submit(service.predict)
        service.wait_until(lambda: service.client().get("/health").json()["in_flight"] == 1)
        # A request whose first bytes have come, so that the connection is not an idle one.
        body = multipart(image_bytes())
        head = f"POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form_type()}\r\n"
        open_before.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-9])
        time.sleep(0.5)
        service.signal(signal.SIGTERM)
        time.sleep(0.5)
        open_before.sendall(body[-9:])
        assert open_before.recv(4096).startswith(b"HTTP/1.1 503 ")
        assert late.connect_ex(("127.0.0.1", service.port)) != 0 or _is_refused(late, request)
    assert service.wait() == 0


def _is_refused(connection, request):
    try:
        connection.sendall(request)
        return not connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return True


@pytest.mark.slow
def test_a_request_that_hangs(serve):
    """A request that would never end is given up when the time for the end is over; the exit status is 0."""
    service = serve(settings=["serving.drain_s=2", "serving.deadline_s=60"])
    decoders = service.decoders()
    for number in decoders:
        os.kill(number, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: httpx.post(f"{service.url}/api/v1/predict", files={"image": image_bytes()}, timeout=30))
        service.wait_until(lambda: service.get("/health").json()["in_flight"] == 1)
        service.signal(signal.SIGTERM)
        began = time.monotonic()
        assert service.wait(30) == 0
    print(f"ended after {time.monotonic() - began:.1f} s; 2 s are allowed to requests")
    assert time.monotonic() - began < 10
    assert not any(_is_alive(number) for number in decoders)


def test_a_killed_service_leaves_no_decoders(serve):
    """When a service is killed its decoders end, too."""
    service = serve()
    decoders = service.decoders()
    service.signal(signal.SIGKILL)
    service.wait()
    service.wait_until(lambda: not any(_is_alive(number) for number in decoders), 10)


def _is_alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_second_service_on_one_log(serve, forks, project):
    """A second service does not write to the audit log of one that runs, and says why."""
    service = serve()
    second = start_service(forks, project)
    assert second.wait(60) == 75 and "audit" in second.log and "Traceback" not in second.log
    assert service.predict().status_code == 200
