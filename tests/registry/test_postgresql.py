"""The gate on PostgreSQL, on a server that the test starts; skipped where PostgreSQL is not installed."""

import pytest
from registry_cases import BAD, NAME, Registry
from sqlalchemy import create_engine, text
from test_races import check_races, run_races

from medvision.errors import GateFailed
from medvision.registry.promotion import approve, promote, read_ledger, rollback
from medvision.registry.verification import check_registry
from medvision.validation.keys import load_trusted_keys
from tests.postgresql_server import running_postgresql

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres():
    """Start PostgreSQL."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def stored(postgres, tmp_path_factory):
    """Return a gated registry in the server."""
    return Registry.make(tmp_path_factory.mktemp("stored") / "project", postgres.uri("postgres"))


@pytest.fixture
def registry(stored, monkeypatch):
    """Return the registry without what other tests have left in it."""
    with create_engine(stored.database).begin() as connection:
        for table in ("medvision_ledger", "registered_model_aliases", "model_version_tags", "model_versions"):
            connection.execute(text(f"DELETE FROM {table}"))
    monkeypatch.chdir(stored.folder)
    stored.set(approvals=1, champion=["production"])
    return stored


def test_bad_and_good(registry):
    """On PostgreSQL every kind of bad version is refused, and a good one is promoted and rolled back."""
    registry.set(champion=["staging"])
    for kind, (make, rule) in BAD.items():
        with pytest.raises(GateFailed, match=f"Rule: {rule}"):
            promote(registry.client, NAME, make(registry), to="challenger")
        assert registry.state_of() == ({}, {}), kind
    first, second = registry.approved(1, semantic="1.0.0"), registry.approved(2, semantic="1.1.0")
    for number in (first, second):
        promote(registry.client, NAME, number)
    rollback(registry.client, NAME, reason="Worse.")
    assert registry.state_of() == (
        {"champion": first, "v1-0-0": first, "v1-1-0": second}, {first: "Production", second: "Archived"}
    )  # fmt: skip
    assert check_registry(registry.client, NAME, load_trusted_keys(registry.state)) == []
    with create_engine(registry.database).begin() as connection:
        connection.execute(
            text("DELETE FROM medvision_ledger WHERE sequence = (SELECT max(sequence) FROM medvision_ledger)")
        )
    assert "Alias champion" in check_registry(registry.client, NAME, load_trusted_keys(registry.state))[0]


def test_races_on_postgresql(registry):
    """Of two who promote at the same time one wins, and the other leaves with 4: 100 times, on PostgreSQL."""
    check_races(registry, run_races(registry, 100))


def test_the_ledger_is_kept_by_the_database(registry):
    """An entry can't be written twice: the database itself refuses it."""
    number = registry.register()
    approve(registry.client, NAME, number, meaning="Fit.", reason="Seen.")
    assert [entry.action for entry in read_ledger(registry.client, NAME)] == ["register", "approve"]
    with create_engine(registry.database).begin() as connection, pytest.raises(Exception, match="duplicate key"):
        connection.execute(text("INSERT INTO medvision_ledger SELECT name, sequence, entry FROM medvision_ledger"))
