"""Files of an evidence archive while they are gathered, with who signed them and what did not hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.validation.keys import public_pem


class Gathered:
    """Files by their path in the archive, the keys that signed them, and what did not hold."""

    def __init__(self, trusted: Mapping[str, Ed25519PublicKey]) -> None:
        self.trusted = dict(trusted)
        self.files: dict[str, bytes] = {}
        self.problems: list[str] = []
        self.signers: set[str] = set()

    def json(self, name: str, value: Any) -> None:
        """Take a record, as JSON."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        self.files[name] = f"{text}\n".encode()

    def take_keys(self) -> None:
        """Take the public key of everybody who signed something, and name those whose key is not here."""
        for signer in sorted(self.signers):
            if signer in self.trusted:
                self.files[f"keys/{signer[:16]}.pub"] = public_pem(self.trusted[signer]).encode()
            else:
                self.problems.append(f"Key {signer[:16]} has signed something in here, and is not trusted here.")
