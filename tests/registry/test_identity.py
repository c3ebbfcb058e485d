"""Who asks is the account of the system, or nobody: what can be claimed does not count."""

import os
import pwd

import pytest
from mlflow.exceptions import MlflowException
from registry_cases import NAME, SAID

from medvision.config import load_config
from medvision.errors import ConfigInvalid
from medvision.registry.identity import identify
from medvision.registry.promotion import approve, promote, read_ledger
from medvision.tracking.mlflow_sink import registry_uri


def test_an_account_can_not_be_claimed(monkeypatch):
    """Variables by which programs let themselves be called otherwise change nothing."""
    for name in ("USER", "LOGNAME", "USERNAME", "LNAME", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.setenv(name, "chief")
    assert identify().who == pwd.getpwuid(os.getuid()).pw_name != "chief"
    assert identify().is_named


def test_nobody_in_a_server_without_users(monkeypatch):
    """In a server's process nobody has the account of the server."""
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", "sqlite://")
    assert not identify().is_named


def test_approvals_say_what_and_why(registry):
    """An approval without a meaning or a reason is refused; with both it stands in the ledger, with the account."""
    number = registry.register()
    for said in ({"meaning": "", "reason": "Seen."}, {"meaning": "Fit.", "reason": " "}):
        with pytest.raises(ConfigInvalid, match="approve expects"):
            approve(registry.client, NAME, number, **said)
    entry = approve(registry.client, NAME, number, **SAID)
    assert entry.who == identify().who
    assert (entry.meaning, entry.reason) == (SAID["meaning"], SAID["reason"])
    assert entry.package_digest == registry.package(1)[1]


def test_one_user_is_one_approval(registry):
    """Two approvals by one user count once."""
    registry.set(approvals=2)
    number = registry.approved()
    approve(registry.client, NAME, number, **SAID)
    with pytest.raises(Exception, match=rf"Required: 2 by named users. Found: 1 \({identify().who}\)"):
        promote(registry.client, NAME, number)
    assert [entry.action for entry in read_ledger(registry.client, NAME)].count("approve") == 2


def test_settings_that_are_none(registry):
    """With settings that can't be read the gate stays shut, and says which setting it is."""
    number = registry.register()
    registry.set(approvals=-1)
    with pytest.raises(MlflowException, match=r"registry\.approvals") as raised:
        registry.client.set_registered_model_alias(NAME, "champion", str(number))
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////a/mlflow.db", "medvision+sqlite:////a/mlflow.db"),
        ("postgresql://h/db", "medvision+postgresql://h/db"),
        ("postgresql+psycopg2://h/db", "medvision+postgresql+psycopg2://h/db"),
        ("https://mlflow.hospital.org", "https://mlflow.hospital.org"),
    ],
)
def test_the_registry_has_the_gate(uri, expected):
    """Our own steps go to a database through the gate; a server has its own."""
    assert registry_uri(load_config(overrides={"tracking.uri": uri})) == expected
