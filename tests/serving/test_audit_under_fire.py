"""No answer without its entry in the audit log: when the service is killed, and when the disk is full.

A kill proves the death of a process, not a loss of power.
"""

import contextlib
import json
import os
import random
import signal
import subprocess

import pytest
from service_cases import read_audit, run_command
from traffic import Load


def check_kills(serve, project, kills):
    """Kill the service so many times under load; each answer that a client has got is in the log, which is whole."""
    answered = []
    for number in range(kills):
        service = serve()
        with Load(service, clients=4, pause_s=0.005) as load:
            load.wait_for(random.Random(number).randrange(5, 60))
            service.signal(signal.SIGKILL)
            service.wait()
        answered += [each.body["request_id"] for each in load.seen if each.status == 200]
    logged = [entry["request_id"] for entry in read_audit(project)]
    lost = set(answered) - set(logged)
    print(json.dumps({"kills": kills, "answered": len(answered), "logged": len(logged), "lost": len(lost), "limit": 0}))
    assert answered and not lost and len(set(logged)) == len(logged)
    code, said = run_command(service.forks, project, "audit-log", "verify")
    assert code == 0 and f"{len(logged)} rows" in said, said


def test_killed_under_load(serve, project):
    """After a kill -9 under load no answered request is missing, and the next service goes on behind the last."""
    check_kills(serve, project, 2)


@pytest.mark.slow
def test_killed_again_and_again(serve, project):
    """Nor after ten."""
    check_kills(serve, project, 10)


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path):
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"\0"):
            pass


def test_a_full_disk(serve, small_disk):
    """With no room for the audit log nothing is answered but 503, and the service is not ready until there is room."""
    service = serve(settings=[f"serving.audit_url=sqlite:///{small_disk / 'audit.db'}"])
    answers = [service.predict()]
    fill(small_disk / "other")
    refused = []
    service.wait_until(lambda: refused.append(service.predict()) or refused[-1].status_code == 503, 30)
    answers += [answer for answer in refused if answer.status_code == 200]
    more = [service.predict() for _ in range(3)]
    assert {answer.status_code for answer in more} == {503}
    assert more[0].headers["content-type"] == "application/problem+json" and "audit" in more[0].json()["type"]
    assert str(small_disk) not in more[0].text
    assert service.get("/readyz").json()["reasons"] == ["audit_unavailable"]
    assert service.get("/livez").status_code == 200 and "Traceback" not in service.log
    os.unlink(small_disk / "other")
    service.wait_until(lambda: service.predict().status_code == 200)
    assert service.get("/readyz").status_code == 200
    assert service.end() == 0
    logged = [entry["request_id"] for entry in read_audit(service.project, small_disk / "audit.db")]
    assert {answer.json()["request_id"] for answer in answers} <= set(logged)
    assert not {answer.json()["request_id"] for answer in more} & set(logged)
