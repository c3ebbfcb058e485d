"""Who answers: the champion of the ledger, and nobody who may not."""

from collections import Counter
from types import SimpleNamespace

import pytest

from medvision.errors import CheckpointCorrupt, NotServing, TrackingUnavailable
from medvision.serving.roster import Holders, Roster


def served(number):
    return SimpleNamespace(found=SimpleNamespace(number=str(number)), version=f"{number}.0.0")


class Registry:
    """A registry whose holders and versions a test changes."""

    def __init__(self, champion=1, challenger=None):
        self.held, self.loads, self.broken, self.told = Holders(champion, challenger), [], set(), []
        self.fault = CheckpointCorrupt("broken")

    def look(self):
        if isinstance(self.held, Exception):
            raise self.held
        return self.held

    def load(self, number):
        self.loads.append(number)
        if number in self.broken:
            raise self.fault
        return served(number)

    def roster(self, **options):
        roster = Roster(self.look, self.load, on_swap=lambda outcome, present: self.told.append(outcome), **options)
        roster.start(3600)
        return roster


def number_of(roster, case="a"):
    return int(roster.choose(case).found.number)


def test_another_champion_takes_over():
    """When the ledger names another version it is loaded once and answers from then on; who asked keeps theirs."""
    registry = Registry()
    roster = registry.roster()
    kept = roster.choose("a")
    registry.held = Holders(2, None)
    roster.refresh()
    roster.refresh()
    assert (number_of(roster), kept.version, registry.loads, registry.told) == (2, "1.0.0", [1, 2], ["swapped"] * 2)


def test_a_version_that_may_not_answer_leaves_the_old_one():
    """The old champion stays, the reason is told, and a broken package is not loaded again at each look."""
    registry = Registry()
    roster = registry.roster()
    registry.held, registry.broken = Holders(2, None), {2}
    for _ in range(5):
        roster.refresh()
    assert (number_of(roster), registry.loads) == (1, [1, 2])
    assert "version 2" in roster.present.problem
    assert registry.told == ["swapped", "refused"]


@pytest.mark.parametrize("fault", [RuntimeError("no such operator"), OSError(28, "No space left on device")])
def test_a_version_that_fails_in_a_way_of_its_own(fault):
    """Whatever it fails of, the old champion stays, the reason is told, and it is not loaded again at each look."""
    registry = Registry()
    roster = registry.roster()
    registry.held, registry.broken, registry.fault = Holders(2, None), {2}, fault
    for _ in range(3):
        roster.refresh()
    assert (number_of(roster), registry.loads, registry.told) == (1, [1, 2], ["swapped", "refused"])
    assert "version 2" in roster.present.problem


def test_a_rollback_needs_no_loading_of_what_answers():
    """Going back to the version that answers still, because its successor was broken, loads nothing."""
    registry = Registry()
    roster = registry.roster()
    registry.held, registry.broken = Holders(2, None), {2}
    roster.refresh()
    registry.held = Holders(1, None)
    roster.refresh()
    assert (number_of(roster), registry.loads, roster.present.problem) == (1, [1, 2], "")


def test_a_withdrawn_champion_answers_nobody():
    """Where the ledger has no champion any more, nobody answers."""
    registry = Registry()
    roster = registry.roster()
    registry.held = Holders(None, None)
    roster.refresh()
    with pytest.raises(NotServing, match="none is champion"):
        roster.choose("a")


def test_an_alias_that_was_moved_by_hand():
    """The champion of the ledger answers, and the alarm stands until the aliases agree again."""
    registry = Registry()
    roster = registry.roster()
    registry.held = Holders(1, None, "alias_diverged")
    roster.refresh()
    assert number_of(roster) == 1 and roster.present.is_diverged
    registry.held = Holders(1, None)
    roster.refresh()
    assert not roster.present.is_diverged


def test_the_first_champion_must_load():
    """A service whose champion is broken does not start."""
    registry = Registry()
    registry.broken = {1}
    with pytest.raises(CheckpointCorrupt):
        Roster(registry.look, registry.load).start(60)


def test_a_withdrawn_champion_does_not_stand_in():
    """Where the next champion can't be loaded, the one before answers on, but not if it was withdrawn."""
    registry = Registry()
    roster = registry.roster()
    registry.held, registry.broken = Holders(2, None, withdrawn=frozenset({1})), {2}
    for _ in range(5):
        roster.refresh()
    with pytest.raises(NotServing):
        roster.choose("a")
    assert registry.loads == [1, 2]


def test_a_registry_that_does_not_answer(monkeypatch):
    """Whoever answers goes on, the reason is told, and goes away with the fault."""
    registry = Registry()
    roster = registry.roster()
    registry.held = TrackingUnavailable("down")
    looks = iter([False, True])
    monkeypatch.setattr(roster._stop, "wait", lambda every_s: next(looks))
    roster._watch(0)
    assert number_of(roster) == 1 and "does not answer" in roster.present.problem
    registry.held = Holders(1, None)
    roster.refresh()
    assert roster.present.problem == ""


@pytest.mark.parametrize("percent", [0, 10, 50, 100])
def test_the_share_of_a_canary(percent):
    """A challenger answers its share of the cases, and the same cases each time."""
    roster = Registry(challenger=2).roster(canary_percent=percent)
    cases = [f"case {number}" for number in range(5_000)]
    chosen = [number_of(roster, case) for case in cases]
    assert chosen == [number_of(roster, case) for case in cases]
    # Six standard deviations of a binomial share.
    assert Counter(chosen)[2] / len(cases) == pytest.approx(percent / 100, abs=6 * (0.25 / 5_000) ** 0.5)


def test_a_challenger_is_loaded_where_it_has_a_part():
    """Without canary and shadow it is not loaded; in the shadow it answers no case, and shadows each."""
    registry = Registry(challenger=2)
    registry.roster()
    assert registry.loads == [1]
    roster = registry.roster(is_shadowed=True)
    champion = roster.choose("a")
    assert (champion.version, roster.shadow_of(champion).version) == ("1.0.0", "2.0.0")


def test_a_broken_challenger_leaves_the_champion():
    """All cases are the champion's, and the reason is told."""
    registry = Registry(challenger=2)
    registry.broken = {2}
    roster = registry.roster(canary_percent=100)
    assert number_of(roster) == 1 and "version 2" in roster.present.problem


def test_a_promoted_challenger_is_not_loaded_again():
    """It is the one who answers its share already."""
    registry = Registry(challenger=2)
    roster = registry.roster(canary_percent=10)
    registry.held = Holders(2, None)
    roster.refresh()
    assert (number_of(roster), registry.loads, roster.present.challenger) == (2, [1, 2], None)
