"""A verdict, and the envelope of it."""

import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).parent))

from validation_cases import verdict_with

from medvision.validation.attestation import sign
from medvision.validation.keys import key_id


@pytest.fixture
def verdict():
    """Return a passed verdict."""
    return verdict_with()


@pytest.fixture
def signed(verdict):
    """Return the envelope of the verdict, and the keys that are trusted for it."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return sign(verdict, key), {key_id(key.public_key()): key.public_key()}
