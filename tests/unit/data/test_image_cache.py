"""Images are decoded once, into a cache that is whole or absent, whatever happens to the process or the disk."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from medvision.data.cache import open_cache
from medvision.data.decode import decode_image, fit_to_square
from medvision.errors import DiskFull

SCRIPT = """
import hashlib, sys
from pathlib import Path
from medvision.config import Config
from medvision.data.cache import open_cache
from medvision.data.manifest import load_or_build_manifest

root, state, cache = map(Path, sys.argv[1:])
config = Config.model_validate(
    {"dataset": {"name": "sample", "path": root}, "paths": {"state": state}, "performance": {"workers": 1}}
)
manifest = load_or_build_manifest(config)
print("ready", flush=True)
images = open_cache(manifest, image_size=256, channels=3, folder=cache, workers=1)
print(hashlib.sha256(images).hexdigest())
"""


def start(root, state, cache):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, root, state, cache], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def large(build, noise, write_image, tmp_path):
    """Return a manifest of colour images that take about a second to decode."""
    pixels = noise(0, (700, 700, 3))
    for i in range(30):
        pixels[0, 0] = i
        write_image(tmp_path / "large" / "ab"[i % 2] / f"{i}.png", pixels, compress_level=1)
    return build(tmp_path / "large")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("colour", [False, True])
def test_holds_decoded_squares(build, noise, write_image, tmp_path, channels, colour):
    """Each row is what decoding and fitting gives, exactly; gray datasets are kept in one channel."""
    for i in range(8):
        write_image(tmp_path / "d" / "ab"[i % 2] / f"{i}.png", noise(i, (40 + i, 30, 3) if colour and i else (40, 30)))
    manifest = build(tmp_path / "d")
    images = open_cache(manifest, image_size=24, channels=channels, folder=tmp_path / "cache", workers=1)
    stored = channels if colour else 1
    assert images.shape == (8, 24, 24, stored) and images.dtype == np.uint8 and not images.flags.writeable
    for row, source in enumerate(manifest.sources()):
        assert np.array_equal(images[row], fit_to_square(decode_image(source), 24, stored))


def test_second_opening_decodes_nothing(build, sample, tmp_path):
    """Once made, the cache opens without the images."""
    manifest = build(sample)
    first = np.array(open_cache(manifest, image_size=24, channels=1, folder=tmp_path / "cache", workers=1))
    for source in manifest.sources():
        source.file.unlink()
    assert np.array_equal(open_cache(manifest, image_size=24, channels=1, folder=tmp_path / "cache", workers=1), first)


def test_other_images_or_sizes_have_their_own_cache(build, sample, noise, write_image, tmp_path):
    """A cache of other pixels, or of another size, is never taken for this one."""
    folder = tmp_path / "cache"
    small = open_cache(build(sample), image_size=24, channels=1, folder=folder, workers=1)
    large = open_cache(build(sample), image_size=48, channels=1, folder=folder, workers=1)
    write_image(sample / "glioma" / "0.png", noise(99))
    changed = open_cache(build(sample), image_size=24, channels=1, folder=folder, workers=1)
    assert small.shape != large.shape
    assert not np.array_equal(small[0], changed[0]) and np.array_equal(small[1:], changed[1:])


def test_kill_half_way(large, state, tmp_path):
    """A kill -9 while the cache is filled leaves no half cache, and the next call makes it whole."""
    folder = tmp_path / "cache"
    process = start(large.root, state, folder)
    deadline = time.monotonic() + 60
    while not (begun := list(folder.glob("*.tmp"))) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert begun and not list(folder.glob("*.npy"))
    # Its space was taken before it was filled: a disk that fills up meanwhile can't kill the process by SIGBUS.
    left = begun[0].stat()
    assert left.st_blocks * 512 >= left.st_size > 30 * 256 * 256 * 3
    images = open_cache(large, image_size=256, channels=3, folder=folder, workers=1)
    assert all(
        np.array_equal(images[row], fit_to_square(decode_image(large.sources()[row]), 256, 3)) for row in (0, 15, 29)
    )
    assert not list(folder.glob("*.tmp"))


def test_two_processes_at_once(large, state, tmp_path):
    """Two processes that need the cache at once both get the right one, and one file is made."""
    folder = tmp_path / "cache"
    processes = [start(large.root, state, folder) for _ in range(2)]
    digests = [process.communicate(timeout=120)[0].split()[-1] for process in processes]
    images = open_cache(large, image_size=256, channels=3, folder=folder, workers=1)
    assert digests == [hashlib.sha256(images).hexdigest()] * 2
    assert len(list(folder.glob("*.npy"))) == 1 and not list(folder.glob("*.tmp"))


def test_failure_leaves_nothing(build, sample, tmp_path):
    """An image that has vanished since stops the filling, and leaves no file behind."""
    manifest = build(sample)
    manifest.sources()[5].file.unlink()
    with pytest.raises(Exception, match="No such file"):
        open_cache(manifest, image_size=24, channels=1, folder=tmp_path / "cache", workers=1)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(large, small_disk):
    """A disk without room gives DiskFull (exit 75) before anything is decoded, and nothing is left on it."""
    with pytest.raises(DiskFull, match="disk is full") as refusal:
        open_cache(large, image_size=256, channels=3, folder=small_disk / "cache", workers=1)
    assert refusal.value.exit_code == 75
    assert [path.suffix for path in (small_disk / "cache").iterdir()] == [".lock"]
