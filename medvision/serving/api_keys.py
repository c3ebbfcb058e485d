"""Who may ask the prediction service: API keys, of which only hashes are kept.

A key is ``mv_ID_SECRET``. Its file, beside the signing keys, has the SHA-256 of each: a secret of 256 random bits can't
be guessed, so that a slow hash, which is for passwords, would cost time and give nothing. Where the file can't be
trusted nobody is let in.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import threading
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import Field, TypeAdapter, ValidationError

from medvision.errors import ConfigInvalid
from medvision.files import locked, write_secret
from medvision.validation.keys import keys_dir

_LOG = logging.getLogger(__name__)

Role = Literal["predict", "read", "admin"]
# predict: predictions and model_info; read: model_info, usage and metrics; admin: all of it.
ROLES: tuple[Role, ...] = ("predict", "read", "admin")

# The id is hexadecimal, since the secret, base64url, may have underscores.
_KEY = re.compile(r"mv_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[\w.@ -]{1,64}")
_NOBODY = "0" * 64


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept: ``sha256`` is that of its whole text; ``per_minute``: how many images it may send."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    name: str
    role: Role
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: str
    revoked_at: str | None
    per_minute: Annotated[int, Field(ge=1)]


# Of a file: when it was changed, its size and its inode.
_Stamp = tuple[int, int, int]


class ApiKeys:
    """The keys of a file, as they are at the moment: what is revoked there is refused without a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._keys: dict[str, ApiKey] = {}

    def find(self, text: str) -> ApiKey | None:
        """Return the key of a text; None if it is unknown, malformed or revoked, or if the file can't be trusted."""
        found = _KEY.fullmatch(text)
        if found is None:
            return None
        key = self._current().get(found[1])
        # An unknown id takes as long as a wrong secret, and so tells nothing.
        is_right = hmac.compare_digest(_sha256(text), key.sha256 if key else _NOBODY)
        return key if key and is_right and key.revoked_at is None else None

    def _current(self) -> dict[str, ApiKey]:
        with self._lock:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._keys, self._stamp = self._load(), stamp
            return self._keys

    def _load(self) -> dict[str, ApiKey]:
        try:
            keys = {key.id: key for key in list_keys(self._path)}
        except ConfigInvalid as error:
            _LOG.error("Every API key is refused until this is mended. %s", error)
            return {}
        _LOG.info("%d API keys read", len(keys))
        return keys


def api_keys_path(state: Path) -> Path:
    """Return the file of the API keys in the state folder."""
    return keys_dir(state) / "api_keys.json"


def create_key(path: Path, name: str, role: str, per_minute: int) -> tuple[ApiKey, str]:
    """Add a key to the file; return it and its text, which is kept nowhere.

    Raises ConfigInvalid: the role is unknown, the name has other than 1 to 64 letters, digits, blanks and ``._@-``,
    ``per_minute`` is below 1, or the file can't be trusted.
    """
    _check(name, role, per_minute)
    id_ = secrets.token_hex(8)
    text = f"mv_{id_}_{secrets.token_urlsafe(32)}"
    key = ApiKey(id_, name, cast("Role", role), _sha256(text), _now(), None, per_minute)
    with _locked(path):
        keys = list_keys(path)
        if not keys:
            path.parent.chmod(0o700)
        _write(path, (*keys, key))
    return key, text


def revoke_key(path: Path, id: str) -> ApiKey:
    """Revoke a key for good, and return it; one that is revoked already stays as it is.

    Raises ConfigInvalid: no key has this id, or the file can't be trusted.
    """
    with _locked(path):
        keys = {key.id: key for key in list_keys(path)}
        if id not in keys:
            # Without what was given, which may be a whole key.
            raise ConfigInvalid("No API key has the id that was given. To see them, run: medvision keys list")
        if keys[id].revoked_at is None:
            keys[id] = replace(keys[id], revoked_at=_now())
            _write(path, tuple(keys.values()))
    return keys[id]


def list_keys(path: Path) -> tuple[ApiKey, ...]:
    """Return all keys, revoked ones too, oldest first; none if there is no file.

    Raises ConfigInvalid: the file is damaged or can't be read, or others than its owner could have changed it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode | path.parent.stat().st_mode
            content = file.read()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigInvalid(f"The API keys, {path}, can't be read: {error.strerror}.") from None
    if mode & 0o022:
        raise ConfigInvalid(f"Others could put a key of theirs into {path}. Run: chmod go-w {path.parent} {path}")
    return _parse(path, content)


def _parse(path: Path, content: bytes) -> tuple[ApiKey, ...]:
    try:
        keys = TypeAdapter(tuple[ApiKey, ...]).validate_json(content)
    except ValidationError as error:
        raise _damaged(path, error.errors()[0]["msg"]) from None
    # Of two with one id, one could be revoked and the other not.
    if len({key.id for key in keys}) < len(keys):
        raise _damaged(path, "two keys have one id")
    return keys


def _damaged(path: Path, why: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"The API keys, {path}, are damaged ({why}). Restore the file, or move it away and make new keys: "
        "medvision keys create NAME"
    )


def _check(name: str, role: str, per_minute: int) -> None:
    if role not in ROLES:
        raise ConfigInvalid(f"The role of an API key is one of {', '.join(ROLES)}; found {role!r}.")
    if not _NAME.fullmatch(name):
        raise ConfigInvalid("The name of an API key has 1 to 64 letters, digits, blanks and ._@- and nothing else.")
    if per_minute < 1:
        raise ConfigInvalid(f"An API key may send 1 image a minute or more; found {per_minute}.")


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    write_secret(path, (json.dumps([asdict(key) for key in keys], indent=2) + "\n").encode())


def _locked(path: Path) -> AbstractContextManager[None]:
    return locked(path.with_name(f"{path.name}.lock"))


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
