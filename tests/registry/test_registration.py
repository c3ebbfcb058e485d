"""What the commands ask of a registry before they change anything in it, and how they name what is not there."""

import py_compile
from pathlib import Path

import pytest
from registry_cases import NAME

from medvision.config import load_config
from medvision.errors import ConfigInvalid
from medvision.registry.loader import CODE, check_loader, own_code
from medvision.registry.model_files import open_files
from medvision.registry.packages import FoundModel, promoted_code
from medvision.registry.registration import Candidate, RegisteredVersion, Registration, Registry
from medvision.tracking.mlflow_sink import registry_uri
from medvision.validation.keys import load_trusted_keys
from pipelines.registry import find_version

CANDIDATE = Candidate("another", "0" * 64, None, None, {})


def test_nothing_is_registered_without_a_gate(registry):
    """In a registry without the gate neither model nor version is made, nor is a request kept as a mere tag."""
    number = registry.register()
    plain = Registry(registry.database, registry.database)
    with pytest.raises(ConfigInvalid, match="has no gate"):
        plain.register(CANDIDATE, "m-" + "0" * 32)
    registered = Registration(NAME, number, "1.0.0", "v1-0-0", "", "none")
    source = registry.plain.get_model_version(NAME, str(number)).source
    with pytest.raises(ConfigInvalid, match="has no gate"):
        plain.attach(CANDIDATE, RegisteredVersion(registered, source, ""))
    assert [model.name for model in registry.plain.search_registered_models()] == [NAME]
    assert "medvision.request" not in registry.plain.get_model_version(NAME, str(number)).tags


def test_what_the_registry_refuses_is_one_sentence(registry):
    """A logged model that is not there is an error of ours, and no traceback of MLflow's."""
    with pytest.raises(ConfigInvalid, match="m-0000"):
        Registry(registry.database, registry.uri).register(CANDIDATE, "m-" + "0" * 32)


def test_what_python_keeps_of_the_loader_is_no_other_code(registry):
    """A version that was loaded in place, where Python leaves the loader compiled, may be promoted; other code not."""
    number = registry.approved()
    code = registry.files(number) / CODE.name
    compiled = Path(py_compile.compile(str(code)))
    with open_files(registry.client.get_model_version(NAME, str(number)).source, registry.database) as files:
        assert check_loader(files) is None
        evil = registry.folder / "evil.py"
        evil.write_text("print('mine')\n")
        own = compiled.read_bytes()[:16]
        compiled.write_bytes(own + Path(py_compile.compile(str(evil))).read_bytes()[16:])
        assert "other code in __pycache__" in check_loader(files)
        compiled.write_bytes(own + b"x")
        assert "other code in __pycache__" in check_loader(files)


def test_the_loader_of_a_promotion_counts_later(registry):
    """The code that loaded a version when it was promoted is known from the ledger, if a trusted key has signed it."""
    number = registry.crown()
    found = FoundModel(NAME, str(number), "", "")
    assert promoted_code(registry.client, found, load_trusted_keys(registry.state)) == {own_code()}
    assert promoted_code(registry.client, found, {}) == set()


@pytest.mark.parametrize("uri", ["mysql://u:secret@h/db", "mssql+pyodbc://h/db", "./mlruns", "file:///a/mlruns"])
def test_a_registry_that_can_have_no_gate(uri):
    """A store before which there is no gate is refused as a registry, without the password that it is opened with."""
    with pytest.raises(ConfigInvalid, match="no gate before a registry") as refused:
        registry_uri(load_config(overrides={"tracking.uri": uri}))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("which", ["/9", "/9.9.9", "@champion"])
def test_a_version_that_is_not_there(registry, which):
    """It is named as it was asked for, with the command that tells which there are."""
    with pytest.raises(ConfigInvalid) as refused:
        find_version(registry.client, NAME + which)
    assert f"There is no version {NAME}{which} in the registry" in str(refused.value)
    assert f"medvision history {NAME}" in str(refused.value)
