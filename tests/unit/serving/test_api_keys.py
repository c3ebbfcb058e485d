"""API keys: known by their hash alone, revoked at once, and refused where their file can't be trusted."""

import json
import logging
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from medvision.errors import ConfigInvalid
from medvision.serving import api_keys
from medvision.serving.api_keys import ApiKeys, create_key, list_keys, revoke_key


@pytest.fixture
def path(tmp_path):
    return api_keys.api_keys_path(tmp_path)


def test_a_key_opens(path):
    """The text of a key finds it, with its name, role and rate."""
    made, text = create_key(path, "PACS of ward 3", "predict", 120)
    assert ApiKeys(path).find(text) == made
    assert (made.name, made.role, made.per_minute, made.revoked_at) == ("PACS of ward 3", "predict", 120, None)


def test_the_secret_is_nowhere(path, tmp_path, caplog):
    """The secret is in no file, in no log, and in nothing that a list shows; its file is for its owner alone."""
    caplog.set_level(logging.DEBUG)
    _, text = create_key(path, "a", "admin", 60)
    assert ApiKeys(path).find(text)
    secret = text.split("_", 2)[2]
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or secret not in file.read_text()
    assert secret not in caplog.text and secret not in repr(list_keys(path))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_secrets_have_256_bits(path):
    """A key has its id and 32 random bytes, and no two are alike."""
    texts = [create_key(path, "a", "read", 1)[1] for _ in range(20)]
    assert len({text.split("_", 2)[2] for text in texts}) == len({text.split("_")[1] for text in texts}) == 20
    assert all(len(text.split("_", 2)[2]) == 43 for text in texts)


def altered(text):
    """Return a key with its last letter exchanged."""
    return text[:-1] + ("A" if text[-1] != "A" else "B")


@pytest.mark.parametrize(
    "change",
    [
        altered,
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.upper(),
        lambda text: "mv_" + "0" * 16 + text[19:],
        lambda text: "",
        lambda text: "mv__",
        lambda text: text.replace("mv_", "mv-"),
        lambda text: text[:-1] + "\udce9",
        lambda text: "x" * 1_000_000,
    ],
)
def test_what_is_not_the_key_is_refused(path, change):
    """Any other text is no key, and no error: a wrong letter, a wrong id, a cut, a blank, nothing, a flood."""
    _, text = create_key(path, "a", "predict", 60)
    assert ApiKeys(path).find(change(text)) is None


def test_the_hash_is_no_key(path):
    """Who has read the file can't ask: its hash in place of the secret is refused."""
    made, _ = create_key(path, "a", "predict", 60)
    assert ApiKeys(path).find(f"mv_{made.id}_{made.sha256[:43]}") is None


def test_an_unknown_id_is_compared_too(path, monkeypatch):
    """An unknown id costs the same comparison in constant time as a known one."""
    compared = []
    true_compare = api_keys.hmac.compare_digest
    monkeypatch.setattr(api_keys.hmac, "compare_digest", lambda *two: compared.append(two) or true_compare(*two))
    _, text = create_key(path, "a", "predict", 60)
    keys = ApiKeys(path)
    keys.find(altered(text))
    keys.find("mv_" + "0" * 16 + text[19:])
    assert [len(theirs) for _, theirs in compared] == [64, 64]


def test_a_revoked_key_is_refused_at_once(path):
    """What is revoked in the file is refused within a second, without a restart; another key still opens."""
    (first, text), (_, other) = create_key(path, "a", "predict", 60), create_key(path, "b", "predict", 60)
    keys = ApiKeys(path)
    assert keys.find(text)
    revoke_key(path, first.id)
    started = time.monotonic()
    while keys.find(text):
        assert time.monotonic() - started < 1
    assert keys.find(other)


def test_a_new_key_opens_at_once(path):
    """A key that is made while the server runs opens, also where there was none before."""
    keys = ApiKeys(path)
    assert keys.find("mv_" + "0" * 16 + "_" + "A" * 43) is None
    made, text = create_key(path, "a", "predict", 60)
    assert keys.find(text) == made


def test_revoking_again_changes_nothing(path):
    """A key that is revoked keeps the time at which it was."""
    made, _ = create_key(path, "a", "predict", 60)
    first, before = revoke_key(path, made.id), path.stat().st_mtime_ns
    assert revoke_key(path, made.id) == first and first.revoked_at
    assert path.stat().st_mtime_ns == before


def test_an_unknown_id_is_not_shown(path):
    """Revoking by the whole key is refused, and the message does not show it."""
    _, text = create_key(path, "a", "predict", 60)
    with pytest.raises(ConfigInvalid, match="medvision keys list") as refused:
        revoke_key(path, text)
    assert text.split("_", 2)[2] not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "role", "per_minute"),
    [("a", "root", 60), ("", "read", 60), ("a\nb", "read", 60), ("a" * 65, "read", 60), ("a", "read", 0)],
)
def test_what_can_not_be_a_key_is_refused(path, name, role, per_minute):
    """An unknown role, a name that could forge a line of a log, or a rate of nothing makes no key."""
    with pytest.raises(ConfigInvalid):
        create_key(path, name, role, per_minute)
    assert not path.exists()


def twice(content):
    """Return the content with its only key twice."""
    return json.dumps(json.loads(content) * 2)


DAMAGES = {
    "cut": lambda content: content[:-20],
    "empty": lambda content: "",
    "another shape": lambda content: '{"keys": []}',
    "a role that is none": lambda content: content.replace("predict", "root"),
    "a hash that is none": lambda content: content.replace('"sha256": "', '"sha256": "x'),
    "one id twice": twice,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_lets_nobody_in(path, damage, caplog):
    """A damaged file: commands refuse it and leave it, the server refuses every key and says why, once."""
    _, text = create_key(path, "a", "predict", 60)
    keys, whole = ApiKeys(path), path.read_text()
    assert keys.find(text)
    path.write_text(damage(whole))
    with pytest.raises(ConfigInvalid, match="damaged"):
        create_key(path, "b", "predict", 60)
    assert path.read_text() == damage(whole)
    assert (keys.find(text), keys.find(text)) == (None, None)
    assert caplog.text.count("Every API key is refused") == 1
    path.write_text(whole)
    assert keys.find(text)


def test_a_file_that_is_gone_lets_nobody_in(path):
    """Without the file no key opens."""
    _, text = create_key(path, "a", "predict", 60)
    keys = ApiKeys(path)
    assert keys.find(text)
    path.unlink()
    assert keys.find(text) is None


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_file_that_others_can_write_lets_nobody_in(path, which):
    """Where others could add a key of theirs nobody is let in, and the message says how to mend it."""
    _, text = create_key(path, "a", "predict", 60)
    (path if which == "file" else path.parent).chmod(0o770)
    assert ApiKeys(path).find(text) is None
    with pytest.raises(ConfigInvalid, match="chmod go-w"):
        list_keys(path)


def make_keys(path, name, count):
    for _ in range(count):
        create_key(path, name, "predict", 60)


def test_a_race_loses_no_key(path):
    """Four processes make 10 keys each, at the same time: all 40 are there."""
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=make_keys, args=(path, f"maker {i}", 10)) for i in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(list_keys(path)) == 40


def test_keys_open_while_others_are_made(path):
    """Threads that ask while the file is written again and again find their key each time."""
    _, text = create_key(path, "a", "predict", 60)
    keys, done = ApiKeys(path), threading.Event()

    def ask():
        while not done.is_set():
            if keys.find(text) is None:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        make_keys(path, "b", 30)
        done.set()
        assert all(future.result() for future in asked)
