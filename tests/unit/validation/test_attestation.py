"""What is signed cannot be changed, and what others sign does not count."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from validation_cases import verdict_with

from medvision.errors import GateFailed, VerdictUntrusted
from medvision.records import as_dict
from medvision.validation.attestation import PAYLOAD_TYPE, load_envelope, open_envelope, render_json, sign
from medvision.validation.keys import key_id


def with_parts(text, **parts):
    """Return an envelope with other parts, written as the true one is."""
    return json.dumps({**json.loads(text), **parts}, indent=2) + "\n"


def test_round_trip(signed, verdict):
    """What was signed comes out as it went in."""
    assert open_envelope(*signed) == verdict


def test_the_envelope_is_dsse(signed, verdict):
    """The signature is Ed25519 over DSSE's encoding of payload type and payload, computed here by itself."""
    envelope = json.loads(signed[0])
    payload = base64.b64decode(envelope["payload"])
    (signature,) = envelope["signatures"]
    encoded = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload
    signed[1][signature["keyid"]].verify(base64.b64decode(signature["sig"]), encoded)
    assert envelope["payloadType"] == "application/vnd.medvision.verdict+json"
    assert json.loads(payload) == json.loads(json.dumps(as_dict(verdict)))


def test_every_flipped_byte_is_refused(signed):
    """Whichever byte of the envelope is changed, by one bit, it is refused."""
    text, trusted = signed
    for position in range(len(text)):
        changed = text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :]
        with pytest.raises(VerdictUntrusted):
            open_envelope(changed, trusted)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text.replace("  ", "    "),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{" * 100_000,
        lambda text: text.replace('"payloadType"', '"payload": "e30=", "payloadType"'),
        lambda text: with_parts(text, signatures=json.loads(text)["signatures"] * 2),
        lambda text: with_parts(text, signatures=[]),
        lambda text: with_parts(text, more=1),
    ],
)
def test_another_shape_is_refused(signed, change):
    """An envelope with anything more, less or other in it is refused, without a stack trace of the parser."""
    with pytest.raises(VerdictUntrusted):
        open_envelope(change(signed[0]), signed[1])


def test_another_key_does_not_count(signed, verdict):
    """A verdict that is signed by a key which is not trusted is refused, with what to do."""
    with pytest.raises(VerdictUntrusted, match=r"not trusted.*medvision keys show"):
        open_envelope(sign(verdict, Ed25519PrivateKey.generate()), signed[1])


def test_another_key_under_a_trusted_name_does_not_count(signed, verdict):
    """A stranger's signature that names a trusted key is refused."""
    stranger = Ed25519PrivateKey.generate()
    (trusted_id,) = signed[1]
    forged = sign(verdict, stranger).replace(key_id(stranger.public_key()), trusted_id)
    with pytest.raises(VerdictUntrusted, match="does not fit"):
        open_envelope(forged, signed[1])


def test_a_signature_is_of_one_verdict(signed):
    """The signature of one verdict does not hold for another."""
    envelope, other = json.loads(signed[0]), json.loads(sign(verdict_with((21, 90, 90)), Ed25519PrivateKey.generate()))
    swapped = json.dumps({**envelope, "payload": other["payload"]}, indent=2) + "\n"
    with pytest.raises(VerdictUntrusted, match="does not fit"):
        open_envelope(swapped, signed[1])


def test_a_missing_or_binary_file(tmp_path, signed):
    """A missing envelope, or one that is no text, is no verdict: the gate has failed."""
    with pytest.raises(GateFailed, match="no signed verdict"):
        load_envelope(tmp_path / "gone.json", signed[1])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(GateFailed, match="UTF-8"):
        load_envelope(tmp_path / "binary.json", signed[1])


def test_readable_text_is_that_of_the_payload(signed, verdict):
    """The readable file beside the envelope is the same from the verdict and from what was signed."""
    assert render_json(open_envelope(*signed)) == render_json(verdict)
    assert json.loads(render_json(verdict))["state"] == "passed"
