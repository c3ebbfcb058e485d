"""Keyed hashes in place of names: who knows an identifier but not the key can't find the patient."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from medvision.errors import DataInvalid
from medvision.files import locked


def load_or_make_key(state: Path) -> bytes:
    """Return the project's secret key for pseudonyms, made at its first use, readable by its owner only."""
    path = state / "keys" / "pseudonyms.key"
    with locked(path.with_suffix(".lock")):
        if not path.is_file():
            path.parent.chmod(0o700)
            temporary = path.with_suffix(".tmp")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    # An empty or short key would make pseudonyms that anybody can turn back.
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise DataInvalid(f"{path} is damaged: expected 64 hexadecimal digits. Restore it, or delete {state}.")
    return bytes.fromhex(text)


def pseudonym(key: bytes, identifier: str) -> str:
    """Return 16 hexadecimal digits of HMAC-SHA256 (RFC 2104) of an identifier."""
    return hmac.new(key, identifier.encode(), hashlib.sha256).hexdigest()[:16]
