"""The keys that verdicts are signed with, Ed25519: one's own pair, and the public keys of others who are trusted.

The private key is a file that its owner alone can read, in the state folder, which no run stores; or it comes, as PEM
text, from the environment variable MEDVISION_SIGNING_KEY, which wins.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from medvision.errors import ConfigInvalid
from medvision.files import locked, write_secret, write_text

VARIABLE = "MEDVISION_SIGNING_KEY"
PRIVATE_KEY, PUBLIC_KEY, TRUSTED = "signing.key", "signing.pub", "trusted"
_MADE_BY = "Give one made by: medvision keys init"


def keys_dir(state: Path) -> Path:
    """Return the folder of the keys in the state folder."""
    return state / "keys"


def make_key(state: Path) -> tuple[Path, bool]:
    """Make a pair of keys unless there is one, which stays; return the public key's path and whether it is new.

    The public key of an earlier pair goes to the trusted ones: what was signed with it is proven still.
    """
    folder = keys_dir(state)
    with locked(folder / f"{PRIVATE_KEY}.lock"):
        private, public = folder / PRIVATE_KEY, folder / PUBLIC_KEY
        is_new = not private.exists()
        if is_new:
            folder.chmod(0o700)
            _write_private(private, Ed25519PrivateKey.generate())
        # A kill between the two files leaves the private one, of which the other is made.
        _write_public(public, _load_file(private).public_key())
    return public, is_new


def has_key(state: Path) -> bool:
    """Tell whether there is a key to sign with."""
    return bool(os.environ.get(VARIABLE)) or (keys_dir(state) / PRIVATE_KEY).exists()


def load_signing_key(state: Path) -> Ed25519PrivateKey:
    """Return the private key: that of the variable, else that of the file.

    Raises ConfigInvalid: there is none, it is no Ed25519 key, or others than its owner can read the file.
    """
    text = os.environ.get(VARIABLE)
    if text:
        return _parse_private(text.encode(), VARIABLE)
    return _load_file(keys_dir(state) / PRIVATE_KEY)


def load_trusted_keys(state: Path) -> dict[str, Ed25519PublicKey]:
    """Return the keys whose signatures count, by their id: one's own, and every ``trusted/*.pub``.

    Raises ConfigInvalid: a file is no Ed25519 public key, or others could have put it there.
    """
    folder, text = keys_dir(state), os.environ.get(VARIABLE)
    _check_folders(folder)
    found = [_parse_private(text.encode(), VARIABLE).public_key()] if text else []
    own = folder / PUBLIC_KEY
    files = [*([own] if own.is_file() else []), *sorted((folder / TRUSTED).glob("*.pub"))]
    found += [_parse_public(path) for path in files]
    return {key_id(key): key for key in found}


def load_public_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Return the public keys of a folder, every ``*.pub``, by their id; ConfigInvalid as ``load_trusted_keys``."""
    if not folder.is_dir():
        raise ConfigInvalid(f"{folder} is no folder. Name one with the public keys that are trusted, *.pub.")
    _check_folders(folder)
    return {key_id(key): key for key in map(_parse_public, sorted(folder.glob("*.pub")))}


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key: ``openssl pkey -pubin -in FILE -outform DER | sha256sum`` prints the same."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def public_pem(key: Ed25519PublicKey) -> str:
    """Return a public key as PEM text."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def _write_private(path: Path, key: Ed25519PrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(path, text)


def _write_public(path: Path, key: Ed25519PublicKey) -> None:
    """Write one's own public key, unless it is there; that of another pair is kept among the trusted ones."""
    if path.exists():
        former = _parse_public(path)
        if key_id(former) == key_id(key):
            return
        trusted = path.parent / TRUSTED
        trusted.mkdir(mode=0o700, exist_ok=True)
        write_text(trusted / f"former-{key_id(former)[:16]}.pub", public_pem(former))
    write_text(path, public_pem(key))


def _load_file(path: Path) -> Ed25519PrivateKey:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        raise ConfigInvalid(f"There is no key to sign with at {path}. Run: medvision keys init") from None
    except OSError as error:
        raise ConfigInvalid(f"The key to sign with, {path}, can't be read: {error.strerror}.") from None
    if mode & 0o077:
        raise ConfigInvalid(
            f"Others than its owner can read {path} (mode {mode & 0o777:o}): what is signed with it proves nothing. "
            f"Run: chmod 600 {path}; if others may have read it, move it away and run: medvision keys init"
        )
    return _parse_private(content, str(path))


def _parse_private(content: bytes, name: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the library's reason, which may quote the key.
        raise ConfigInvalid(f"{name} is not a private key in PEM without a password. {_MADE_BY}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigInvalid(f"{name} is a key of another kind; expected Ed25519. {_MADE_BY}")
    return key


def _parse_public(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise ConfigInvalid(f"{path} is not a public key in PEM. Put the right one there, or remove it.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigInvalid(f"{path} is a key of another kind; expected Ed25519. Remove it.")
    return key


def _check_folders(folder: Path) -> None:
    for path in (folder, folder / TRUSTED):
        if path.is_dir() and path.stat().st_mode & 0o022:
            raise ConfigInvalid(f"Others could put a key of theirs into {path}. Run: chmod go-w {path}")
