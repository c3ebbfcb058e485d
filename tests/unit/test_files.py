"""Files are whole or absent: through kills, full disks and other processes."""

import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import time

import pytest

from medvision import files
from medvision.errors import DataInvalid, DiskFull
from medvision.files import atomic_write, fingerprint, is_disk_full, locked, read_json, sha256_file, write_json

# Each file of the writer is one byte value, 40 MB long.
WRITER = """
import sys
from pathlib import Path
value = int(sys.argv[2])
print("ready", flush=True)
while True:
    value = (value + 1) % 256
    atomic_write(Path(sys.argv[1]), lambda file: [file.write(bytes([value]) * 1_000_000) for _ in range(40)])
"""


def start(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_kill_never_tears_a_file(tmp_path):
    """After 25 kills at random moments the 40 MB file is always one whole version."""
    path, moments = tmp_path / "file", random.Random(0)
    atomic_write(path, lambda file: file.write(bytes(40_000_000)))
    for attempt in range(25):
        process = start(WRITER, path, 10 * attempt)
        process.stdout.readline()
        time.sleep(moments.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        content = path.read_bytes()
        assert len(content) == 40_000_000 and content.count(content[0]) == len(content)
        for left in tmp_path.glob(".*.tmp"):
            left.unlink()


def test_replaces_whole(tmp_path):
    """The new content replaces the old, in a file that others may read, and no temporary stays."""
    path = tmp_path / "new" / "folder" / "file"
    for content in (b"old and long", b"new"):
        atomic_write(path, lambda file, content=content: file.write(content))
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_failure_keeps_the_old_file(tmp_path, error):
    """Whatever stops the writing, the old content stays and no temporary does."""

    def fail(file):
        file.write(b"half")
        raise error

    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)):
        atomic_write(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


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


def test_full_disk_keeps_the_old_file(small_disk):
    """A full disk gives DiskFull (exit 75), keeps the old content, and leaves no temporary."""
    path = small_disk / "file"
    path.write_text("old")
    with pytest.raises(DiskFull, match="intact") as refusal:
        atomic_write(path, lambda file: file.write(bytes(2_000_000)))
    assert refusal.value.exit_code == 75
    assert path.read_text() == "old" and list(small_disk.iterdir()) == [path]


def test_full_disk_under_torch(small_disk):
    """torch's own error for a full disk is known as one."""
    torch = pytest.importorskip("torch")
    path = small_disk / "best_model.pth"
    path.write_text("old")
    with pytest.raises(DiskFull):
        atomic_write(path, lambda file: torch.save({"weights": torch.zeros(1_000_000)}, file))
    assert path.read_text() == "old" and list(small_disk.iterdir()) == [path]


def test_is_disk_full():
    """A full disk is known through any chain of errors, and nothing else is taken for one."""
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise ValueError("saving failed") from error
    except ValueError as error:
        assert is_disk_full(error)
    assert not is_disk_full(OSError(2, "No such file")) and not is_disk_full(None)


def test_lock_excludes(tmp_path):
    """While one process holds the lock no other does: 4 processes of 100 steps each count to 400."""
    (tmp_path / "count").write_text("0")
    script = (
        "import sys; from pathlib import Path; from medvision.files import locked\n"
        "folder = Path(sys.argv[1])\n"
        "for _ in range(100):\n"
        "    with locked(folder / 'lock'):\n"
        "        n = int((folder / 'count').read_text()); (folder / 'count').write_text(str(n + 1))\n"
    )
    processes = [start(script, tmp_path) for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == [""] * 4
    assert (tmp_path / "count").read_text() == "400"


def test_lock_dies_with_its_holder(tmp_path):
    """A killed process leaves no lock behind."""
    script = (
        "import sys, time; from pathlib import Path; from medvision.files import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    process = start(script, tmp_path / "lock")
    assert process.stdout.readline() == "held\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    begun = time.monotonic()
    with locked(tmp_path / "lock"):
        assert time.monotonic() - begun < 1


def test_json(tmp_path):
    """JSON survives, in any language; NaN, which is no JSON, is refused."""
    write_json(tmp_path / "file.json", {"größe": [1, 2.5, None, True]})
    assert read_json(tmp_path / "file.json") == {"größe": [1, 2.5, None, True]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", float("nan"))
    assert read_json(tmp_path / "file.json") == {"größe": [1, 2.5, None, True]}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"{'a': 1}"])
def test_damaged_json(tmp_path, content):
    """A damaged or missing file is invalid data, named."""
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DataInvalid, match=r"file\.json is not valid JSON"):
        read_json(tmp_path / "file.json")
    with pytest.raises(DataInvalid, match=r"gone\.json is missing"):
        read_json(tmp_path / "gone.json")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_sha256(tmp_path, size, monkeypatch):
    """The hash is SHA-256 of the bytes, also where Python has no file_digest (3.10)."""
    content = random.Random(0).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_fingerprint_is_canonical():
    """A fingerprint depends on the content, not on the order of keys."""
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))


def test_project_root(tmp_path, monkeypatch):
    """The root is the nearest folder upwards with an MLproject, else the working folder."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert files.project_root() == tmp_path / "a" / "b"
    (tmp_path / "MLproject").touch()
    assert files.project_root() == tmp_path


def test_an_exit_during_a_write_stays_an_exit(tmp_path):
    """A signal that ends the process while torch writes is not replaced by torch's own error."""

    def write(file):
        try:
            raise SystemExit(143)
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(SystemExit) as caught:
        atomic_write(tmp_path / "file", write)
    assert caught.value.code == 143
    assert list(tmp_path.iterdir()) == []
