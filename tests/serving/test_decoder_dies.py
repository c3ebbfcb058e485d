"""A decoder that dies or hangs takes one request with it, and is replaced; the others are answered."""

import os
import signal
import time

import pytest
from traffic import Load


def strike(service, number, rounds, pause_s):
    """Send a signal to a decoder again and again while images are answered; return what was answered."""
    with Load(service, clients=2) as load:
        load.wait_for(5)
        for _ in range(rounds):
            try:
                os.kill(service.decoders()[0], number)
            except (ProcessLookupError, IndexError):
                continue
            time.sleep(pause_s)
        load.wait_for(10)
    return load.seen


def test_a_decoder_dies(serve):
    """When decoders are killed under load, only the images that they were reading are lost, with a problem."""
    service = serve()
    seen = strike(service, signal.SIGSEGV, 5, 0.5)
    lost = [each for each in seen if each.status != 200]
    assert {each.status for each in seen} <= {200, 400, 422, 503, 504}
    assert len(lost) <= 5 and len(seen) - len(lost) > 10
    assert all(each.body["type"] for each in lost)
    service.wait_until(lambda: len(service.decoders()) == 2)
    assert service.predict().status_code == 200


@pytest.mark.slow
def test_a_decoder_hangs(serve):
    """When a decoder hangs, the image that it had is given up at its deadline, and the others are answered."""
    service = serve(settings=["serving.deadline_s=2"])
    seen = strike(service, signal.SIGSTOP, 2, 2.5)
    assert {each.status for each in seen} <= {200, 504}
    late = [each for each in seen if each.status == 504]
    assert 1 <= len(late) <= 2 and max(each.seconds for each in late) < 5
    assert service.predict().status_code == 200 and len(service.decoders()) == 2
