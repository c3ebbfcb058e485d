"""An archive is unpacked whole inside its folder, or not at all, within bounds and in flat memory."""

import io
import os
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest

from medvision.config import DatasetConfig
from medvision.data import archives
from medvision.data.archives import unpack
from medvision.data.layout import detect_layout
from medvision.errors import DataInvalid, DiskFull


def write_zip(path, members, **options):
    """Write a zip of (name or ZipInfo, content) pairs, as they are: zipfile mends no name that is set afterwards."""
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo("x")
            if not isinstance(name, zipfile.ZipInfo):
                info.filename = name
                info.compress_type = options.get("compression", zipfile.ZIP_STORED)
            file.writestr(info, content)
    return path


def linked(name, mode=stat.S_IFLNK):
    """Return the entry of a link, or of another kind of file."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    return info


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".unpack.lock")


def test_zip_of_class_folders(tmp_path, write_dataset):
    """A zipped dataset is the same dataset, without what macOS adds."""
    write_dataset(tmp_path / "d", ["data/a/1.png", "data/b/1.png"])
    members = [(f"data/{c}/1.png", (tmp_path / "d/data" / c / "1.png").read_bytes()) for c in "ab"]
    archive = write_zip(tmp_path / "My scans (2).zip", [("data/", b""), *members, ("__MACOSX/data/._1.png", b"x")])
    folder = unpack(archive, tmp_path / "into")
    assert folder == tmp_path / "into" / "My-scans-2"
    assert [file.path for file in detect_layout(folder, DatasetConfig()).files] == ["data/a/1.png", "data/b/1.png"]
    assert not (folder / "__MACOSX").exists()


def test_unpacking_twice_does_nothing(tmp_path):
    """A second time the folder is returned as it is, also where the user has changed it."""
    archive = write_zip(tmp_path / "d.zip", [("a/1.png", b"1")])
    folder = unpack(archive, tmp_path / "into")
    (folder / "a" / "1.png").write_bytes(b"2")
    assert unpack(archive, tmp_path / "into") == folder and (folder / "a" / "1.png").read_bytes() == b"2"


def test_folder_of_another_archive(tmp_path):
    """A folder that another archive, or a person, has made is neither taken nor overwritten."""
    unpack(write_zip(tmp_path / "d.zip", [("a/1.png", b"1")]), tmp_path / "into")
    (tmp_path / "d.zip").unlink()
    with pytest.raises(DataInvalid, match="was not unpacked from this archive"):
        unpack(write_zip(tmp_path / "d.zip", [("a/2.png", b"22")]), tmp_path / "into")
    (tmp_path / "into" / "e").mkdir()
    with pytest.raises(DataInvalid, match="was not unpacked from this archive"):
        unpack(write_zip(tmp_path / "e.zip", [("a/2.png", b"22")]), tmp_path / "into")


ESCAPES = [
    "../x", "a/../../x", "a/../x", "..", "a/..", "../", "./x", "a/./x", "a//x", "/x", "//x", "///etc/x", "\\x", "..\\x",
    "a\\..\\..\\x", "C:\\x", "C:/x", "c:x", "\\\\server\\share\\x", "a/\x00../x", "x\x00.png", "\x00", "a\n/x",
    "\u2024\u2024/x", "\u2025/x", "\uff0e\uff0e/x", "\ufe52\ufe52/x", "a\uff0f..\uff0fx", "..\uff0fx", "..\uff3cx",
    " ../x", ".. /x", ".../x", "a/.. ./x", " /x", "a/ /x", "\x7f/x", "a/\x1b[2J", "x" * 300, "/".join("d" * 70),
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES, ids=ascii)
def test_names_that_lie_elsewhere(tmp_path, name):
    """No spelling of a name leads out of the folder; what is doubtful is refused, and nothing is left behind."""
    canary = tmp_path / "x"
    canary.write_text("untouched")
    archive = write_zip(tmp_path / "d.zip", [("a/1.png", b"1"), (name, b"evil")])
    with pytest.raises(DataInvalid, match="Nothing was unpacked"):
        unpack(archive, tmp_path / "into")
    assert canary.read_text() == "untouched" and everything_in(tmp_path) == ["d.zip", "into", "x"]


def test_there_are_forty_spellings():
    """As many spellings are tried as were promised."""
    assert len(set(ESCAPES)) == 40


@pytest.mark.parametrize(
    "name", ["%2e%2e/x", "..%2fx", "file:/x", "~/x", "$HOME/x", "a/..b/x", "...a/x", "-rf/x", "Ünï/x"]
)
def test_odd_names_stay_inside(tmp_path, name):
    """Names that only look like escapes to something that decodes them are plain names inside the folder."""
    folder = unpack(write_zip(tmp_path / "d.zip", [(name, b"1")]), tmp_path / "into")
    assert (folder / name).read_bytes() == b"1"


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices(tmp_path, mode):
    """Links, pipes and devices are refused, also where a later member would be written through one."""
    archive = write_zip(tmp_path / "d.zip", [(linked("out", mode), b"/etc"), ("out/x", b"evil")])
    with pytest.raises(DataInvalid, match="a link or a device"):
        unpack(archive, tmp_path / "into")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names", ["a/1.png a/1.png", "a/1.png A/1.PNG", "a/straße a/STRASSE", "a/\ufb01n a/fin", "a a/1.png", "a/1.png A"]
)
def test_two_members_of_one_name(tmp_path, names):
    """Two members that are one file on some file system, or a file and a folder, are refused."""
    archive = write_zip(tmp_path / "d.zip", [(name, b"1") for name in names.split()])
    with pytest.raises(DataInvalid, match="of the name"):
        unpack(archive, tmp_path / "into")


@pytest.mark.parametrize("name", ["inner.zip", "inner.tar.gz", "inner.7z", "data.npz", "inner.TGZ"])
def test_archive_in_the_archive(tmp_path, name):
    """An archive in the archive is refused by its name ..."""
    with pytest.raises(DataInvalid, match="an archive itself"):
        unpack(write_zip(tmp_path / "d.zip", [("a/1.png", b"1"), (name, b"x")]), tmp_path / "into")


def test_archive_under_another_name(tmp_path):
    """... and by its first bytes; nothing is left behind."""
    inner = io.BytesIO()
    write_zip(inner, [("x", b"1")])
    with pytest.raises(DataInvalid, match="an archive itself"):
        unpack(write_zip(tmp_path / "d.zip", [("a/1.png", inner.getvalue())]), tmp_path / "into")
    assert everything_in(tmp_path / "into") == []


def test_nifti_is_no_archive(tmp_path):
    """A gzipped NIfTI volume is an image, not an archive."""
    folder = unpack(write_zip(tmp_path / "d.zip", [("a/scan.nii.gz", b"\x1f\x8b")]), tmp_path / "into")
    assert (folder / "a" / "scan.nii.gz").is_file()


def test_encrypted(tmp_path):
    """An encrypted archive is refused as such."""
    archive = write_zip(tmp_path / "d.zip", [("a/1.png", b"1")])
    content = bytearray(archive.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataInvalid, match="is encrypted"):
        unpack(archive, tmp_path / "into")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods(tmp_path, method):
    """Methods whose decoders take what memory they like are refused."""
    with pytest.raises(DataInvalid, match="not by deflate"):
        unpack(write_zip(tmp_path / "d.zip", [("a/1.png", b"1" * 100)], compression=method), tmp_path / "into")


def test_damaged_archives(tmp_path):
    """Wherever an archive is cut, or a byte of it changed, it is unpacked right or refused, and leaves nothing."""
    content = os.urandom(500)
    archive = write_zip(tmp_path / "d.zip", [("a/1.png", content)], compression=zipfile.ZIP_DEFLATED)
    whole = archive.read_bytes()
    damaged = [whole[:size] for size in range(0, len(whole), 29)]
    damaged += [whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :] for i in range(0, len(whole), 7)]
    for number, each in enumerate(damaged):
        (tmp_path / f"d{number}.zip").write_bytes(each)
        try:
            folder = unpack(tmp_path / f"d{number}.zip", tmp_path / "into")
        except DataInvalid:
            assert not (tmp_path / "into" / f"d{number}").exists()
        else:
            files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".unpacked.json"]
            assert [path.read_bytes() for path in files] == [content]


@pytest.mark.parametrize("value", [0x00, 0xFF])
def test_every_damaged_byte_of_the_directory(tmp_path, value):
    """Whatever byte is changed, the archive is unpacked or refused, and leaves nothing."""
    whole = write_zip(tmp_path / "d.zip", [("a/1.png", b"1"), ("b/Ü.png", b"2")]).read_bytes()
    for i in range(len(whole)):
        (tmp_path / "e.zip").write_bytes(whole[:i] + bytes([value]) + whole[i + 1 :])
        try:
            shutil.rmtree(unpack(tmp_path / "e.zip", tmp_path / "into"))
        except DataInvalid:
            assert everything_in(tmp_path / "into") == []


@pytest.mark.parametrize("name", [".unpacked.json/a.png", ".Unpacked.json", ".unpacked.json"])
def test_name_of_the_marker(tmp_path, name):
    """No member takes the name of what says that the folder is whole."""
    with pytest.raises(DataInvalid, match="keeps for itself"):
        unpack(write_zip(tmp_path / "d.zip", [("a/1.png", b"1"), (name, b"x")]), tmp_path / "into")


def test_no_archive(tmp_path):
    """What is no zip, empty, or not there is refused."""
    (tmp_path / "d.zip").write_bytes(b"not a zip")
    for archive, message in ((tmp_path / "d.zip", "not a zip"), (tmp_path / "gone.zip", "There is no archive")):
        with pytest.raises(DataInvalid, match=message):
            unpack(archive, tmp_path / "into")
    with pytest.raises(DataInvalid, match="holds no files"):
        unpack(write_zip(tmp_path / "e.zip", [("a/", b"")]), tmp_path / "into")


def test_too_many_entries(tmp_path, monkeypatch):
    """More entries than are allowed are refused before the list of them is read."""
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    archive = write_zip(tmp_path / "d.zip", [(f"a/{i}.png", b"") for i in range(4)])
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(DataInvalid, match="4 entries; at most 3"):
        unpack(archive, tmp_path / "into")


def test_after_a_kill(tmp_path):
    """What a killed run has left is cleared away, and the archive unpacked whole."""
    (tmp_path / "into" / ".unpacking-x" / "a").mkdir(parents=True)
    (tmp_path / "into" / ".unpacking-x" / "a" / "1.png").write_bytes(b"half")
    folder = unpack(write_zip(tmp_path / "d.zip", [("a/1.png", b"whole")]), tmp_path / "into")
    assert everything_in(tmp_path / "into") == ["d", "d/.unpacked.json", "d/a", "d/a/1.png"]
    assert (folder / "a" / "1.png").read_bytes() == b"whole"


def test_disk_too_small(tmp_path, monkeypatch):
    """What does not fit on the disk is refused before anything is written."""
    monkeypatch.setattr(archives, "_RESERVE", 1 << 60)
    with pytest.raises(DiskFull, match="Free some space"):
        unpack(write_zip(tmp_path / "d.zip", [("a/1.png", b"1")]), tmp_path / "into")
    assert everything_in(tmp_path / "into") == []


def test_overlapping_members(tmp_path):
    """Entries that share the bytes of one member, as in the best of bombs, are refused."""
    archive = write_zip(tmp_path / "d.zip", [("a/1", os.urandom(4000)), ("a/2", b"")])
    content = archive.read_bytes()
    start, end = content.find(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
    one = content[start : content.find(b"PK\x01\x02", start + 1)]
    directory = b"".join(one[:46] + b"a" + b"%02d" % i + one[49:] for i in range(89))
    tail = bytearray(content[end:])
    tail[8:12] = (89).to_bytes(2, "little") * 2
    tail[12:16] = len(directory).to_bytes(4, "little")
    archive.write_bytes(content[:start] + directory + bytes(tail))
    with pytest.raises(DataInvalid, match=r"members that overlap|Overlapped entries"):
        unpack(archive, tmp_path / "into")
    assert everything_in(tmp_path / "into") == []


_BOMB = """
import resource, sys, time
from pathlib import Path
from medvision.data.archives import unpack
from medvision.errors import DataInvalid
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.monotonic()
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    print("unpacked")
except DataInvalid as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, time.monotonic() - start)
"""


def unpack_in_a_child(archive, into):
    """Return what unpacking said, the growth of memory in MB, and how long it took."""
    out = subprocess.run(
        [sys.executable, "-c", _BOMB, archive, into], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return out[0], *map(float, out[-1].split())


@pytest.mark.parametrize("honest", [True, False])
def test_bomb(tmp_path, honest):
    """A bomb is refused in flat memory, by its header or, where that lies, by the bytes that come; nothing is left."""
    with (
        zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("a/1.png", "w", force_zip64=True) as member,
    ):
        for _ in range(400):
            member.write(bytes(1 << 20))
    if not honest:
        content = (tmp_path / "d.zip").read_bytes()
        true, lie = (400 << 20).to_bytes(4, "little"), (90 << 20).to_bytes(4, "little")
        assert true in content
        (tmp_path / "d.zip").write_bytes(content.replace(true, lie))
    said, growth, took = unpack_in_a_child(tmp_path / "d.zip", tmp_path / "into")
    assert ("a bomb" in said) if honest else ("damaged" in said or "a bomb" in said)
    assert growth < 30 and took < 10
    assert everything_in(tmp_path / "into") == []


def test_bytes_are_counted_as_they_come(tmp_path, monkeypatch):
    """What is written is counted too: sizes in headers are believed only to refuse early."""
    believed, check = [], archives._Budget.check

    def check_but_for_the_headers(budget, size_bytes):
        believed.append(size_bytes)
        if len(believed) > 1:
            check(budget, size_bytes)

    monkeypatch.setattr(archives._Budget, "check", check_but_for_the_headers)
    with pytest.raises(DataInvalid, match="a bomb"):
        unpack(
            write_zip(tmp_path / "d.zip", [("a/1.png", bytes(90 << 20))], compression=zipfile.ZIP_DEFLATED), tmp_path
        )
    assert len(believed) > 10


def test_large_members_in_flat_memory(tmp_path):
    """A large member is unpacked a piece at a time."""
    with (tmp_path / "big").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as file:
        file.write(tmp_path / "big", "a/1.png")
    said, growth, _ = unpack_in_a_child(tmp_path / "d.zip", tmp_path / "into")
    assert said == "unpacked" and growth < 30
