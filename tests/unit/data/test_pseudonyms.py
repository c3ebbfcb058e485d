"""A patient's key is the same in every run of a project and tells nothing without its secret."""

import hashlib
import hmac
import os
import stat
import subprocess
import sys

import pytest

from medvision.data.pseudonyms import load_or_make_key, pseudonym
from medvision.errors import DataInvalid


def test_key_is_kept(tmp_path):
    """The key is made once, at random, and found again."""
    key = load_or_make_key(tmp_path / "a")
    assert len(key) == 32 and load_or_make_key(tmp_path / "a") == key != load_or_make_key(tmp_path / "b")


def test_key_is_the_owners_only(tmp_path):
    """Nobody but the owner may read the key, whatever the umask."""
    before = os.umask(0)
    try:
        load_or_make_key(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "keys" / "pseudonyms.key").stat().st_mode) == 0o600


def test_processes_agree_on_the_key(tmp_path):
    """Processes that need the first key at the same moment get the same."""
    script = (
        "import sys; from pathlib import Path; from medvision.data.pseudonyms import load_or_make_key; "
        "print(load_or_make_key(Path(sys.argv[1])).hex())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    assert len({process.communicate()[0] for process in started}) == 1


@pytest.mark.parametrize("content", ["", "00", "not hexadecimal"])
def test_damaged_key_is_refused(tmp_path, content):
    """An empty or damaged key makes no pseudonyms: they could be turned back."""
    load_or_make_key(tmp_path)
    (tmp_path / "keys" / "pseudonyms.key").write_text(content)
    with pytest.raises(DataInvalid, match=r"pseudonyms\.key is damaged"):
        load_or_make_key(tmp_path)


def test_pseudonym_is_a_keyed_hash():
    """A pseudonym is the start of HMAC-SHA256: stable, and different under another key."""
    assert pseudonym(b"k", "person1") == hmac.new(b"k", b"person1", hashlib.sha256).hexdigest()[:16]
    assert pseudonym(b"k", "person1") != pseudonym(b"other", "person1")
