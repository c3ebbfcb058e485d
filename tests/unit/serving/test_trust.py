"""Which packages may answer: those with a passed and signed verdict beside them, and no others."""

import dataclasses
import logging

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from validation_cases import verdict_with

from medvision.errors import ConfigInvalid, VerdictUntrusted
from medvision.serving.trust import require_verdict
from medvision.validation.attestation import sign
from medvision.validation.keys import PUBLIC_KEY, TRUSTED, public_pem

PASSED = verdict_with()
FAILED = verdict_with(value={"accuracy": 0.99})
DIGEST = PASSED.package_digest


@pytest.fixture
def beside(tmp_path, key):
    """Return the folder of verdicts beside a package; the project trusts the key."""
    keys = tmp_path / ".medvision" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    (keys / PUBLIC_KEY).write_text(public_pem(key.public_key()))
    folder = tmp_path / "verdicts"
    folder.mkdir()
    return folder


def put(folder, verdict, key, name=None):
    (folder / f"{name or verdict.policy}.dsse.json").write_text(sign(verdict, key))


def refusal(folder):
    """Return the words with which a package is refused."""
    with pytest.raises(VerdictUntrusted) as refused:
        require_verdict("brain-mri-resnet18", DIGEST, folder)
    return str(refused.value)


def test_a_passed_verdict_lets_a_package_answer(beside, key):
    """A passed verdict on the package, signed by the project's own key, is enough."""
    put(beside, PASSED, key)
    assert require_verdict("brain-mri-resnet18", DIGEST, beside) == PASSED


def test_one_of_several_is_enough(beside, key):
    """Beside an older failed one, one of a stranger and one that is no verdict, a passed one counts."""
    put(beside, dataclasses.replace(FAILED, policy="a", made_at="2026-01-01T12:00:00+00:00"), key)
    put(beside, PASSED, Ed25519PrivateKey.generate(), "b")
    (beside / "c.dsse.json").write_bytes(b"\xff\xfe")
    put(beside, PASSED, key)
    assert require_verdict("brain-mri-resnet18", DIGEST, beside) == PASSED


def test_the_newest_verdict_decides(beside, key):
    """A failed verdict counts against an older passed one under another policy, and the refusal names it."""
    put(beside, dataclasses.replace(PASSED, policy="staging"), key)
    put(beside, dataclasses.replace(FAILED, policy="production", made_at="2026-12-01T12:00:00+00:00"), key)
    said = refusal(beside)
    assert "found production: failed under policy production, of 2026-12-01T12:00:00+00:00, the newest one" in said


def test_a_verdict_under_another_name_does_not_count(beside, key):
    """A passed verdict that was copied, so that the next one would not replace it, lets nothing answer."""
    put(beside, PASSED, key, "zz")
    assert "zz: passed under policy mine" in refusal(beside) and "in a file of another name" in refusal(beside)


def test_without_a_verdict_nothing_is_answered(beside, tmp_path):
    """A package with no verdict beside it is refused, with what is required, what was found, and what to run."""
    for folder in (beside, tmp_path / "missing", None):
        said = refusal(folder)
        assert f"brain-mri-resnet18 refuses to answer: expected a passed verdict on package {DIGEST[:12]}" in said
        assert "found no verdict beside it" in said
        assert "Run: medvision validate, then medvision register" in said
        assert "\n" not in said


def test_a_failed_verdict_is_refused(beside, key):
    """A failed verdict lets nothing answer, and is named."""
    put(beside, FAILED, key)
    assert "failed under policy mine" in refusal(beside)


def test_a_verdict_on_another_package_is_refused(beside, key):
    """A passed verdict that was carried over from another package is refused, and that package named."""
    put(beside, dataclasses.replace(PASSED, package_digest="9" * 64), key)
    said = refusal(beside)
    assert "passed under policy mine" in said and "on package 999999999999" in said


def test_a_strangers_verdict_is_refused(beside):
    """A verdict that is signed by a key which is not trusted here is refused, and the key named."""
    put(beside, PASSED, Ed25519PrivateKey.generate())
    assert "which is not trusted here" in refusal(beside)


def test_a_verdict_that_was_changed_is_refused(beside, key):
    """Passed, where failed was signed: refused."""
    put(beside, FAILED, key)
    (path,) = beside.iterdir()
    text = path.read_text()
    forged = sign(dataclasses.replace(FAILED, state="passed"), Ed25519PrivateKey.generate())
    path.write_text(text.replace(text.split('"')[3], forged.split('"')[3]))
    assert "its signature does not fit what it says" in refusal(beside)


def test_a_huge_file_is_no_verdict(beside, key):
    """A file beyond all measure is not even read."""
    put(beside, PASSED, key)
    (path,) = beside.iterdir()
    path.write_text(path.read_text() + " " * 1_000_000)
    assert "found no verdict beside it" in refusal(beside)


def test_the_switch_for_development_is_loud(beside, monkeypatch, caplog):
    """With MEDVISION_UNVALIDATED=allow a package answers without a verdict, and the log says so with the reason."""
    monkeypatch.setenv("MEDVISION_UNVALIDATED", "allow")
    with caplog.at_level(logging.WARNING):
        assert require_verdict("brain-mri-resnet18", DIGEST, beside) is None
    assert "!! MEDVISION_UNVALIDATED=allow: brain-mri-resnet18 answers WITHOUT a valid verdict" in caplog.text
    assert "found no verdict beside it" in caplog.text


@pytest.mark.parametrize("value", ["1", "true", "Allow", ""])
def test_no_other_word_turns_the_switch(beside, monkeypatch, value):
    """Only the word allow lets unvalidated models answer."""
    monkeypatch.setenv("MEDVISION_UNVALIDATED", value)
    refusal(beside)


def test_a_folder_of_keys_is_trusted_in_their_place(beside, key, tmp_path, monkeypatch):
    """Where MEDVISION_TRUSTED_KEYS names a folder, its keys count, and those of the project do not."""
    folder, other = tmp_path / "keys", Ed25519PrivateKey.generate()
    folder.mkdir(mode=0o700)
    (folder / "hospital.pub").write_text(public_pem(other.public_key()))
    monkeypatch.setenv("MEDVISION_TRUSTED_KEYS", str(folder))
    put(beside, PASSED, key)
    assert "which is not trusted here" in refusal(beside)
    put(beside, PASSED, other)
    assert require_verdict("brain-mri-resnet18", DIGEST, beside) == PASSED


def test_a_folder_of_keys_that_is_not_there_is_named(beside, monkeypatch):
    """A folder of keys that does not exist is an error of its own, and not a model without a verdict."""
    monkeypatch.setenv("MEDVISION_TRUSTED_KEYS", "/nowhere")
    with pytest.raises(ConfigInvalid, match="/nowhere is no folder"):
        require_verdict("brain-mri-resnet18", DIGEST, beside)


def test_a_folder_that_others_can_write_is_refused(beside, tmp_path, monkeypatch):
    """Keys out of a folder that others can write to are not trusted."""
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("MEDVISION_TRUSTED_KEYS", str(folder))
    with pytest.raises(ConfigInvalid, match="Others could put a key"):
        require_verdict("brain-mri-resnet18", DIGEST, beside)


def test_a_colleagues_key_is_trusted(beside, tmp_path):
    """A key in trusted/ of the project's keys counts as the project's own."""
    colleague = Ed25519PrivateKey.generate()
    (tmp_path / ".medvision" / "keys" / TRUSTED).mkdir(mode=0o700)
    (tmp_path / ".medvision" / "keys" / TRUSTED / "ada.pub").write_text(public_pem(colleague.public_key()))
    put(beside, PASSED, colleague)
    assert require_verdict("brain-mri-resnet18", DIGEST, beside) == PASSED
