"""Promoters at the same time, and promotions that are killed: one winner each, and alias, stage and ledger agree."""

import multiprocessing
import os
import random
import signal
import time

import pytest
from registry_cases import NAME, Registry

from medvision.errors import MedvisionError, PromotionConflict
from medvision.registry.ledger import PROMOTIONS
from medvision.registry.promotion import archive, holder, promote, read_ledger
from medvision.registry.verification import check_registry
from medvision.validation.keys import load_trusted_keys

# Children are copies of this process, which has imported all that takes seconds.
FORK = multiprocessing.get_context("fork")
RACES = 100


def own_connections(registry):
    """Return the same registry by another name, so that a copied process shares no connection with this one."""
    if registry.database.startswith("sqlite"):
        return Registry(registry.folder, f"sqlite:///{registry.folder}/../{registry.folder.name}/mlflow.db")
    return Registry(registry.folder, f"{registry.database}&application_name=race")


def racer(registry, versions, barrier, outcomes):
    """Promote one version a race, as soon as the other racer is ready too; tell how each ended."""
    client = own_connections(registry).client
    for version in versions:
        seen = holder(client, NAME, "champion")
        barrier.wait(60)
        try:
            promote(client, NAME, version, replacing=seen)
            outcome = "won"
        except MedvisionError as error:
            outcome = error.exit_code
        outcomes.put((version, outcome))
        barrier.wait(60)


def run_races(registry, n):
    """Let two processes promote different versions at the same time, n times; return how each race ended."""
    registry.set(approvals=0, champion=["staging"])
    pairs = [[registry.register(seed) for seed in pair] for pair in ((1, 2), (3, 4))]
    barrier, outcomes = FORK.Barrier(2), FORK.Queue()
    racers = [
        FORK.Process(target=racer, args=(registry, [pairs[race % 2][lane] for race in range(n)], barrier, outcomes))
        for lane in range(2)
    ]
    for process in racers:
        process.start()
    ended = [sorted((outcomes.get(timeout=120) for _ in range(2)), key=lambda each: str(each[1])) for _ in range(n)]
    for process in racers:
        process.join(60)
        assert process.exitcode == 0
    return ended


def check_races(registry, ended):
    """Check that each race had one winner, who is in the ledger, and one loser, who has left with 4."""
    assert [[outcome for _, outcome in race] for race in ended] == [[4, "won"]] * len(ended)
    moves = [entry for entry in read_ledger(registry.client, NAME) if entry.action in PROMOTIONS]
    assert [entry.version for entry in moves] == [race[1][0] for race in ended]
    assert [entry.replaced for entry in moves] == [None, *(entry.version for entry in moves[:-1])]
    assert check_registry(registry.client, NAME, load_trusted_keys(registry.state)) == []


@pytest.mark.slow
def test_races(registry):
    """Of two who promote at the same time one wins, and the other changes nothing and leaves with 4: 100 times."""
    check_races(registry, run_races(registry, RACES))


def test_a_few_races(registry):
    """Of two who promote at the same time one wins, and the other changes nothing and leaves with 4."""
    check_races(registry, run_races(registry, 10))


def test_a_database_that_is_locked(registry):
    """While another program holds the database, a promotion gives up in time and changes nothing: exit 4."""
    import sqlite3

    registry.set(approvals=0)
    number = registry.register()
    before = read_ledger(registry.client, NAME)
    other = sqlite3.connect(registry.folder / "mlflow.db")
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    with pytest.raises(PromotionConflict):
        promote(registry.client, NAME, number)
    assert time.monotonic() - begun < 10
    other.rollback()
    assert read_ledger(registry.client, NAME) == before
    promote(registry.client, NAME, number)


def promote_for_ever(registry, versions, begun):
    """Promote, withdraw, and promote again, until killed."""
    client = own_connections(registry).client
    while True:
        for version in versions:
            promote(client, NAME, version)
            if random.random() < 0.3:
                archive(client, NAME, version)
                promote(client, NAME, version, to="challenger")
        # The first of them may have been champion already, so that nothing was written.
        begun.set()


@pytest.mark.slow
def test_killed_promotions(registry):
    """A promotion that is killed at any moment is done or not begun: aliases, stages and ledger agree each time."""
    registry.set(approvals=0, champion=["staging"])
    versions = [registry.register(seed) for seed in (1, 2)]
    entries = len(read_ledger(registry.client, NAME))
    for attempt in range(15):
        begun = FORK.Event()
        process = FORK.Process(target=promote_for_ever, args=(registry, versions, begun))
        process.start()
        assert begun.wait(60)
        time.sleep(0.3 * random.random())
        assert process.is_alive(), f"attempt {attempt} ended by itself"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert check_registry(registry.client, NAME, load_trusted_keys(registry.state)) == []
        now = len(read_ledger(registry.client, NAME))
        assert now > entries
        entries = now
