"""The signature of a verdict: a DSSE envelope (https://github.com/secure-systems-lab/dsse) around the whole record.

The envelope is read only in the very bytes in which it was written: whatever byte of it is changed, it is refused, be
it one that another reader would pass over.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import TypeAdapter, ValidationError

from medvision.errors import VerdictUntrusted
from medvision.records import Verdict, as_dict
from medvision.validation.keys import key_id

PAYLOAD_TYPE = "application/vnd.medvision.verdict+json"


def sign(verdict: Verdict, key: Ed25519PrivateKey) -> str:
    """Return the envelope of a verdict, as JSON text."""
    payload = json.dumps(as_dict(verdict), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _envelope(payload.encode(), key_id(key.public_key()), key.sign(_encode(payload.encode())))


def open_envelope(text: str, trusted: dict[str, Ed25519PublicKey]) -> Verdict:
    """Return the verdict in an envelope.

    Raises VerdictUntrusted: it is no envelope of a verdict, no trusted key has signed it, or a byte was changed.
    """
    payload, keyid, signature = _parse(text)
    if keyid not in trusted:
        raise VerdictUntrusted(
            f"The verdict is signed by key {keyid[:16]}, which is not trusted here. If it is a colleague's, put the "
            "key that `medvision keys show` prints there into keys/trusted/NAME.pub of the state folder here."
        )
    try:
        trusted[keyid].verify(signature, _encode(payload))
    except InvalidSignature:
        raise _untrusted("its signature does not fit what it says") from None
    if _envelope(payload, keyid, signature) != text:
        raise _untrusted("its bytes are not those that were written")
    return _read(payload)


def load_envelope(path: Path, trusted: dict[str, Ed25519PublicKey]) -> Verdict:
    """Return the verdict in an envelope's file; VerdictUntrusted as ``open_envelope``, and if it is missing."""
    try:
        return open_envelope(path.read_bytes().decode(), trusted)
    except FileNotFoundError:
        raise VerdictUntrusted(f"There is no signed verdict at {path}. Run: medvision validate") from None
    except UnicodeDecodeError:
        raise _untrusted("it is not UTF-8") from None


def render_json(verdict: Verdict) -> str:
    """Return what stands in the readable file beside the envelope, to the byte."""
    return json.dumps(as_dict(verdict), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _encode(payload: bytes) -> bytes:
    """Return what is signed: the pre-authentication encoding of DSSE version 1."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _envelope(payload: bytes, keyid: str, signature: bytes) -> str:
    signatures = [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}]
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": signatures,
    }
    return json.dumps(envelope, indent=2) + "\n"


def _parse(text: str) -> tuple[bytes, str, bytes]:
    try:
        envelope: Any = json.loads(text)
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        return payload, str(signature["keyid"]), base64.b64decode(signature["sig"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise _untrusted("it is not an envelope with one signature") from None


def _read(payload: bytes) -> Verdict:
    try:
        return TypeAdapter(Verdict).validate_json(payload)
    except ValidationError:
        raise _untrusted("it holds no verdict of this version") from None


def _untrusted(why: str) -> VerdictUntrusted:
    return VerdictUntrusted(f"The signed verdict is not to be trusted: {why}. Run: medvision validate")
