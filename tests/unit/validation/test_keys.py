"""The signing key: made once, read by its owner only, never shown."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medvision.errors import ConfigInvalid
from medvision.validation import keys


def pem(key):
    """Return a private key as PEM text."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(keys.VARIABLE, raising=False)


def test_a_key_is_made_for_its_owner_alone(tmp_path):
    """The private key has mode 600 in a folder of mode 700, and the public one is its own."""
    public, is_new = keys.make_key(tmp_path)
    private = keys.keys_dir(tmp_path) / keys.PRIVATE_KEY
    assert is_new
    assert (private.stat().st_mode & 0o777, private.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert public.read_text() == keys.public_pem(keys.load_signing_key(tmp_path).public_key())


def test_a_key_is_never_overwritten(tmp_path):
    """Making a key again leaves the one that is there."""
    keys.make_key(tmp_path)
    before = (keys.keys_dir(tmp_path) / keys.PRIVATE_KEY).read_bytes()
    assert keys.make_key(tmp_path)[1] is False
    assert (keys.keys_dir(tmp_path) / keys.PRIVATE_KEY).read_bytes() == before


def test_two_at_once_make_one_key(tmp_path):
    """Of two that make a key at the same time one makes it, and both have the same."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: keys.make_key(tmp_path)[1], range(4)))
    assert sorted(made) == [False, False, False, True]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    """A private key that others can read or write is refused, and the message says how to mend it."""
    keys.make_key(tmp_path)
    (keys.keys_dir(tmp_path) / keys.PRIVATE_KEY).chmod(mode)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        keys.load_signing_key(tmp_path)


def test_no_key(tmp_path):
    """Without a key the message names the command that makes one."""
    assert not keys.has_key(tmp_path)
    with pytest.raises(ConfigInvalid, match="medvision keys init"):
        keys.load_signing_key(tmp_path)


def test_the_variable_wins(tmp_path, monkeypatch):
    """A key in the variable is used in place of the file's, and its signatures are trusted."""
    keys.make_key(tmp_path)
    other = Ed25519PrivateKey.generate()
    monkeypatch.setenv(keys.VARIABLE, pem(other))
    assert keys.key_id(keys.load_signing_key(tmp_path).public_key()) == keys.key_id(other.public_key())
    assert keys.key_id(other.public_key()) in keys.load_trusted_keys(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["no key", pem(Ed25519PrivateKey.generate()).replace("M", "N"), pem(ed448.Ed448PrivateKey.generate())],
    ids=["text", "damaged", "another kind"],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path, monkeypatch, text):
    """A text that is no Ed25519 key is refused without a word of it, and with the command that makes one."""
    monkeypatch.setenv(keys.VARIABLE, text)
    with pytest.raises(ConfigInvalid, match=keys.VARIABLE) as refused:
        keys.load_signing_key(tmp_path)
    assert text not in str(refused.value)
    assert str(refused.value).endswith("Give one made by: medvision keys init")


def test_a_damaged_file_is_refused_and_not_shown(tmp_path):
    """A private key of which a part is lost is refused without a word of it."""
    keys.make_key(tmp_path)
    private = keys.keys_dir(tmp_path) / keys.PRIVATE_KEY
    private.write_text(private.read_text()[:60])
    with pytest.raises(ConfigInvalid, match=r"signing\.key") as refused:
        keys.load_signing_key(tmp_path)
    assert private.read_text().splitlines()[1][:20] not in str(refused.value)


def test_trusted_keys(tmp_path):
    """One's own key is trusted, and those in the folder of trusted ones; without any there are none."""
    assert keys.load_trusted_keys(tmp_path) == {}
    keys.make_key(tmp_path)
    colleague = Ed25519PrivateKey.generate().public_key()
    folder = keys.keys_dir(tmp_path) / keys.TRUSTED
    folder.mkdir(mode=0o700)
    (folder / "colleague.pub").write_text(keys.public_pem(colleague))
    own = keys.load_signing_key(tmp_path).public_key()
    assert set(keys.load_trusted_keys(tmp_path)) == {keys.key_id(own), keys.key_id(colleague)}


def test_a_private_key_is_not_needed_to_trust(tmp_path):
    """Who has only public keys can verify."""
    keys.make_key(tmp_path)
    (keys.keys_dir(tmp_path) / keys.PRIVATE_KEY).unlink()
    assert len(keys.load_trusted_keys(tmp_path)) == 1


@pytest.mark.parametrize("content", ["no key", keys.public_pem(Ed25519PrivateKey.generate().public_key())[:40]])
def test_a_trusted_file_that_is_no_key(tmp_path, content):
    """A file among the trusted keys that is none is named, and not passed over."""
    keys.make_key(tmp_path)
    folder = keys.keys_dir(tmp_path) / keys.TRUSTED
    folder.mkdir(mode=0o700)
    (folder / "odd.pub").write_text(content)
    with pytest.raises(ConfigInvalid, match=r"odd\.pub"):
        keys.load_trusted_keys(tmp_path)


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    """Where others could put a key of theirs no key is trusted."""
    keys.make_key(tmp_path)
    folder = keys.keys_dir(tmp_path) / keys.TRUSTED
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigInvalid, match="chmod go-w"):
        keys.load_trusted_keys(tmp_path)


def test_the_id_is_what_openssl_prints(tmp_path):
    """The id of a key is the SHA-256 of its DER form, as openssl and sha256sum give it."""
    public, _ = keys.make_key(tmp_path)
    command = f"openssl pkey -pubin -in {public} -outform DER | sha256sum"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    if not shown.stdout.strip() or shown.stderr:
        pytest.skip("no openssl here")
    assert shown.stdout.split()[0] in keys.load_trusted_keys(tmp_path)
