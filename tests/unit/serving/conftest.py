"""Verdicts as the tests of validation have them, and a small package."""

import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).parents[1] / "validation"))
sys.path.insert(0, str(Path(__file__).parents[2] / "security"))


@pytest.fixture
def key():
    """Return a key to sign with."""
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """Work in an empty project, in which neither keys nor switches are set."""
    for name in ("MEDVISION_UNVALIDATED", "MEDVISION_TRUSTED_KEYS", "MEDVISION_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "MLproject").write_text("name: test\n")
    monkeypatch.chdir(tmp_path)
