"""Decoding in processes of its own gives what decoding gives, and outlives what a file does to a decoder."""

import io
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from medical_files import write_dicom
from PIL import Image

from medvision.errors import DeadlinePassed, DecodeRejected, TryAgainLater
from medvision.serving import decoding
from medvision.serving.decoding import Decoders
from medvision.serving.reading import read_forms

FORMS = [("", 32, 1), ("", 48, 3)]
FORMATS = ("PNG", "JPEG")


def png(seed=0, size=(80, 60)):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def decoders():
    found = Decoders(2)
    # They take turns: both have begun to work then.
    for _ in range(2):
        found.read(png(), FORMS, FORMATS, timeout_s=30)
    yield found
    found.close()


def children():
    return [child for child in psutil.Process().children() if "decode_child" in " ".join(child.cmdline())]


def test_an_image_in_every_form(decoders):
    """A process returns the very pixels that decoding here returns."""
    here = read_forms(png(), FORMS, FORMATS)
    there = decoders.read(png(), FORMS, FORMATS, timeout_s=30)
    assert there.keys() == here.keys()
    for form in FORMS:
        np.testing.assert_array_equal(there[form], here[form])


@pytest.mark.parametrize("content", [b"", b"no image", png()[:200], b"GIF89a" + bytes(50)])
def test_what_is_no_image(decoders, content):
    """What is refused here is refused there, in the same words, and the process goes on."""
    with pytest.raises(DecodeRejected) as here:
        read_forms(content, FORMS, FORMATS)
    before = {child.pid for child in children()}
    with pytest.raises(DecodeRejected) as there:
        decoders.read(content, FORMS, FORMATS, timeout_s=30)
    assert str(there.value) == str(here.value)
    assert {child.pid for child in children()} == before


def test_a_file_of_several_images(decoders):
    """A DICOM file of one frame is read; one of several is refused: which of them would have been answered?"""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)
    assert decoders.read(write_dicom(pixels[0]), FORMS, ("DICOM",), timeout_s=30)
    with pytest.raises(DecodeRejected, match="3 frames"):
        decoders.read(write_dicom(pixels), FORMS, ("DICOM",), timeout_s=30)


def test_a_bomb_leaves_the_service_alone(decoders):
    """A file of 20 kB that says it is 13,300 pixels wide is refused; the memory of this process stays."""
    bomb = io.BytesIO()
    Image.new("1", (13_300, 13_300)).save(bomb, "PNG")
    before = psutil.Process().memory_info().rss
    for _ in range(20):
        with pytest.raises(DecodeRejected, match="pixels"):
            decoders.read(bomb.getvalue(), FORMS, FORMATS, timeout_s=30)
    assert psutil.Process().memory_info().rss - before < 5 << 20


def test_a_decoder_that_dies_is_replaced(decoders):
    """Whoever's image it was gets an error, and the next one is answered by another process."""
    for child in children():
        child.suspend()
    outcomes = []

    def read():
        with pytest.raises(DecodeRejected, match="ended"):
            decoders.read(png(), FORMS, FORMATS, timeout_s=30)
        outcomes.append("refused")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    for child in children():
        child.send_signal(signal.SIGSEGV)
        child.resume()
    for thread in threads:
        thread.join()
    assert outcomes == ["refused"] * 2
    assert decoders.read(png(), FORMS, FORMATS, timeout_s=30)
    assert len(children()) == 2


def test_a_decoder_that_has_died_idle_blames_no_image(decoders):
    """The next images are read, by other processes."""
    for child in children():
        child.kill()
        child.wait()
    for _ in range(2):
        assert decoders.read(png(), FORMS, FORMATS, timeout_s=30)
    assert len(children()) == 2


def test_a_decoder_that_can_not_be_replaced_at_once(decoders, monkeypatch):
    """While no process can be started images are refused for the moment; later they are answered again."""
    decoders.read(png(), FORMS, FORMATS, timeout_s=30)
    for child in children():
        child.kill()
    time.sleep(0.2)
    monkeypatch.setattr(decoding.sys, "executable", "/nowhere/python")
    for _ in range(4):
        with pytest.raises(TryAgainLater, match="could be started"):
            decoders.read(png(), FORMS, FORMATS, timeout_s=30)
    monkeypatch.undo()
    for _ in range(4):
        assert decoders.read(png(), FORMS, FORMATS, timeout_s=30)


def test_a_decoder_that_hangs_is_replaced(decoders):
    """It is killed at the deadline of its image, and the next image is read."""
    stopped = children()
    for child in stopped:
        child.suspend()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(DeadlinePassed):
            decoders.read(png(), FORMS, FORMATS, timeout_s=0.3)
        assert time.monotonic() - began < 2
    assert decoders.read(png(), FORMS, FORMATS, timeout_s=30)
    assert not any(child.is_running() for child in stopped)


def test_threads_share_the_decoders(decoders):
    """Each of eight threads gets its own image."""
    found = {}

    def read(seed):
        found[seed] = decoders.read(png(seed), FORMS, FORMATS, timeout_s=30)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(8):
        np.testing.assert_array_equal(found[seed][FORMS[0]], read_forms(png(seed), FORMS, FORMATS)[FORMS[0]])


def test_a_decoder_can_write_no_file(decoders):
    """A process that a file has taken over can't leave anything on the disk."""
    for child in children():
        assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert child.rlimit(psutil.RLIMIT_AS)[0] == 2 << 30


def test_no_decoder_outlives_the_service():
    """Processes end when they are closed."""
    decoders = Decoders(2)
    decoders.read(png(), FORMS, FORMATS, timeout_s=30)
    found = children()
    decoders.close()
    assert not any(child.is_running() for child in found)
