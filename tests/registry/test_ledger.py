"""The ledger: what it tells, and that whatever was done to it is named, with the first bad entry."""

import dataclasses
import json
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from registry_cases import NAME, SAID

from medvision.errors import GateFailed, LedgerBroken
from medvision.registry.ledger import (
    Entry,
    approvals,
    champion_to_beat,
    champions,
    check_chain,
    holders,
    read_chain,
    render,
    rollback_target,
    seal,
    who_was_champion,
)
from medvision.registry.promotion import archive, promote, read_ledger
from medvision.registry.verification import check_registry
from medvision.validation.keys import key_id, load_trusted_keys

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = {key_id(KEY.public_key()): KEY.public_key()}


def ledger(*acts, key=KEY):
    """Return the chain of acts, each (action, version, alias) or with more fields."""
    entries = []
    for action, version, alias, *more in acts:
        fields = {"who": "ada", **(more[0] if more else {})}
        entry = Entry(name="m", sequence=0, time="", action=action, version=version, alias=alias, **fields)
        entries.append(seal(entry, entries[-1] if entries else None, key))
    return entries


STORY = (
    ("register", 1, "v1-0-0"),
    ("promote", 1, "challenger"),
    ("promote", 1, "champion"),
    ("promote", 2, "champion"),
    ("promote", 3, "challenger"),
    ("promote", 3, "champion"),
)


def test_a_whole_chain():
    """What was written is accepted, and comes back from its text as it was."""
    entries = ledger(*STORY)
    check_chain(entries, TRUSTED)
    assert read_chain("m", {entry.sequence: render(entry) for entry in entries}) == entries
    check_chain([], TRUSTED)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Entry) if field.name != "sequence"])
def test_an_edited_entry(field):
    """Whichever field of an entry is edited, the entry is named."""
    entries = ledger(*STORY)
    value = getattr(entries[3], field)
    entries[3] = dataclasses.replace(entries[3], **{field: 9 if field in ("version", "replaced") else f"{value}0"})
    with pytest.raises(LedgerBroken, match="Entry 4 "):
        check_chain(entries, TRUSTED)


def test_an_edited_entry_with_a_new_hash():
    """An entry that was edited and hashed again is named: nobody else has the key."""
    entries = ledger(*STORY)
    stranger = Ed25519PrivateKey.generate()
    entries[3] = seal(dataclasses.replace(entries[3], who="eve"), entries[2], stranger)
    with pytest.raises(LedgerBroken, match=r"Entry 4 .*not trusted"):
        check_chain(entries, TRUSTED)
    entries[3] = dataclasses.replace(entries[3], key_id=entries[0].key_id)
    with pytest.raises(LedgerBroken, match="Entry 4 "):
        check_chain(entries, TRUSTED)


@pytest.mark.parametrize(
    ("order", "bad"), [((0, 1, 3, 4, 5), 3), ((1, 2, 3, 4, 5), 1), ((0, 2, 1, 3, 4, 5), 2), ((0, 1, 1, 2), 3)]
)
def test_deleted_moved_and_doubled(order, bad):
    """An entry that is missing, in another place or there twice is named."""
    entries = ledger(*STORY)
    with pytest.raises(LedgerBroken, match=f"Entry {bad} "):
        check_chain([entries[number] for number in order], TRUSTED)


def test_texts_that_are_no_entries():
    """A row that is missing, or is not the very text of an entry, is named."""
    entries = ledger(*STORY)
    texts = {entry.sequence: render(entry) for entry in entries}
    values = json.loads(texts[2])
    spoiled = ("", "[]", "[" * 100_000, texts[2] + " ", texts[3], json.dumps({**values, "more": 1}),
               render(dataclasses.replace(entries[1], version=True)), json.dumps(values, indent=1))  # fmt: skip
    for text in spoiled:
        with pytest.raises(LedgerBroken, match="Entry 2 "):
            read_chain("m", {**texts, 2: text})
    with pytest.raises(LedgerBroken, match=r"Entry 2 .* is missing"):
        read_chain("m", {number: text for number, text in texts.items() if number != 2})
    with pytest.raises(LedgerBroken, match="Entry 1 "):
        read_chain("other", texts)


def test_holders():
    """The last promotion to an alias tells who holds it; a champion is no challenger, what is archived holds none."""
    assert holders(ledger(*STORY[:2])) == {"challenger": 1}
    assert holders(ledger(*STORY)) == {"champion": 3}
    assert holders(ledger(*STORY, ("archive", 3, "champion"))) == {}
    assert holders(ledger(*STORY, ("archive", 2, ""))) == {"champion": 3}


@pytest.mark.parametrize(
    ("more", "line", "target"),
    [
        ((), [1, 2, 3], 2),
        ((("rollback", 2, "champion"),), [1, 2], 1),
        ((("rollback", 2, "champion"), ("rollback", 1, "champion")), [1], None),
        ((("archive", 3, "champion"),), [1, 2], 2),
        ((("archive", 2, ""),), [1, 3], 1),
        ((("promote", 1, "champion"),), [2, 3, 1], 3),
        ((("rollback", 2, "champion"), ("promote", 3, "champion")), [1, 2, 3], 2),
    ],
)
def test_where_a_rollback_goes(more, line, target):
    """A rollback goes one champion back, and never to one that was withdrawn."""
    entries = ledger(*STORY, *more)
    assert (champions(entries), rollback_target(entries)) == (line, target)


def test_who_was_champion():
    """At any time the ledger says who was champion."""
    acts, start = [*STORY, ("archive", 3, "champion")], datetime(2026, 1, 1, tzinfo=timezone.utc)
    entries = [
        dataclasses.replace(entry, time=(start + timedelta(days=day)).isoformat())
        for day, entry in enumerate(ledger(*acts))
    ]
    found = [who_was_champion(entries, start + timedelta(days=day, hours=1)) for day in range(-1, len(acts))]
    assert found == [None, None, None, 1, 2, 2, 3, None]


def test_approvals_count_once_a_user_and_for_one_verdict():
    """An approval counts once a user, for the version, the package and the verdict that it was given for."""
    seen = {"package_digest": "a", "verdict_sha256": "v"}
    entries = ledger(
        ("approve", 1, "", seen),
        ("approve", 1, "", {**seen, "reason": "Again."}),
        ("approve", 1, "", {**seen, "who": "grace"}),
        ("approve", 1, "", {**seen, "who": "eve", "package_digest": "b"}),
        ("approve", 1, "", {**seen, "who": "eve", "verdict_sha256": "w"}),
        ("approve", 2, "", {**seen, "who": "eve"}),
    )
    assert [entry.sequence for entry in approvals(entries, 1, "a", "v")] == [1, 3]


def test_a_withdrawal_ends_approvals():
    """What was approved before a version was withdrawn counts no more."""
    seen = {"package_digest": "a", "verdict_sha256": "v"}
    entries = ledger(("approve", 1, "", seen), ("archive", 2, ""), ("archive", 1, ""), ("approve", 1, "", seen))
    assert [entry.sequence for entry in approvals(entries, 1, "a", "v")] == [4]


@pytest.mark.parametrize(
    ("more", "rival"),
    [
        ((), 3),
        ((("archive", 3, "champion"),), 3),
        ((("archive", 3, "champion", {"reason": "Unsafe."}),), None),
        ((("archive", 2, "", {"reason": "Unsafe."}),), 3),
        ((("rollback", 2, "champion"),), 2),
    ],
)
def test_the_champion_to_beat(more, rival):
    """A new champion is compared with the last one, unless that was withdrawn for a reason."""
    found = champion_to_beat(ledger(*STORY, *more))
    assert (found and found.version) == rival


def test_a_key_that_is_not_there():
    """Where the gate's public key is missing the advice is to fetch it, and not to restore a backup."""
    with pytest.raises(LedgerBroken, match=r"medvision keys show.*keys/trusted/NAME\.pub") as raised:
        check_chain(ledger(*STORY), {})
    assert "backup" not in str(raised.value)


@pytest.fixture
def promoted(registry):
    """Return a registry whose model has had two champions."""
    registry.set(champion=["staging"])
    for seed in (1, 2):
        promote(registry.client, NAME, registry.approved(seed), **SAID)
    assert verify(registry) == []
    return registry


def verify(registry):
    """Return what the verification finds."""
    return check_registry(registry.client, NAME, load_trusted_keys(registry.state))


def test_history(promoted):
    """The ledger answers who promoted what, when, why, and on what evidence."""
    entries = read_ledger(promoted.client, NAME)
    assert [(entry.action, entry.version) for entry in entries] == [
        ("register", 1), ("approve", 1), ("promote", 1), ("register", 2), ("approve", 2), ("promote", 2),
    ]  # fmt: skip
    last = entries[-1]
    assert (last.alias, last.replaced, last.meaning, last.reason) == ("champion", 1, SAID["meaning"], SAID["reason"])
    assert last.package_digest == promoted.package(2)[1]
    assert (last.policy, len(last.verdict_sha256)) == ("staging", 64)
    assert last.who and datetime.now(timezone.utc) - datetime.fromisoformat(last.time) < timedelta(minutes=5)
    assert who_was_champion(entries, datetime.fromisoformat(last.time) - timedelta(milliseconds=1)) == 1


@pytest.mark.parametrize(
    ("touch", "named"),
    [
        ("UPDATE medvision_ledger SET entry = replace(entry, 'Fit for use.', 'Whatever.') WHERE sequence = 3", "3"),
        ("DELETE FROM medvision_ledger WHERE sequence = 4", "4"),
        ("UPDATE medvision_ledger SET sequence = 40 WHERE sequence = 4", "4"),
        ("UPDATE medvision_ledger SET entry = '' WHERE sequence = 6", "6"),
    ],
    ids=["edited", "deleted", "moved", "emptied"],
)
def test_a_touched_ledger(touch, named, promoted):
    """A ledger that was touched in the database is named by the verification, and nothing is promoted on it."""
    promoted.sql(touch)
    (problem,) = verify(promoted)
    assert f"Entry {named} of the ledger" in problem
    with pytest.raises((GateFailed, LedgerBroken), match=f"Entry {named} of the ledger"):
        promote(promoted.client, NAME, 1)
    assert archive(promoted.client, NAME, 2).alias == "champion"
    assert "champion" not in promoted.state_of()[0]


def test_the_way_to_a_broken_ledger(promoted):
    """Who is refused because of a broken ledger is told a command that there is."""
    promoted.sql("UPDATE medvision_ledger SET entry = replace(entry, 'Fit for use.', 'Whatever.') WHERE sequence = 3")
    with pytest.raises(GateFailed, match=f"Rule: ledger.*Next: medvision history {NAME}"):
        promote(promoted.client, NAME, 1)


def test_a_tail_that_was_cut_off(promoted):
    """A chain without its end is whole, but not what the aliases say: that is found, and nothing is promoted on it."""
    promoted.sql("DELETE FROM medvision_ledger WHERE sequence = 6")
    aliased, *staged = verify(promoted)
    assert "Alias champion is on version 2, but the ledger says version 1" in aliased
    assert len(staged) == 2
    with pytest.raises(GateFailed, match="Rule: ledger"):
        promote(promoted.client, NAME, 1)


def test_a_ledger_that_is_gone(promoted):
    """A ledger that was deleted as a whole is found."""
    promoted.sql("DELETE FROM medvision_ledger")
    assert "Alias champion is on version 2, but the ledger says no version" in verify(promoted)[0]


def test_past_the_gate(promoted):
    """What a plain client changes past the gate is named: aliases, stages, and champions that are gone."""
    promoted.plain.set_registered_model_alias(NAME, "champion", "1")
    (problem,) = verify(promoted)
    assert "Alias champion is on version 1, but the ledger says version 2" in problem
    promoted.plain.set_registered_model_alias(NAME, "champion", "2")
    promoted.plain.transition_model_version_stage(NAME, "1", "Staging")
    (problem,) = verify(promoted)
    assert "Version 1 is in stage Staging" in problem
    promoted.plain.delete_model_version(NAME, "1")
    (problem,) = verify(promoted)
    assert "Version 1 was champion, and is gone" in problem


def test_a_champion_that_was_deleted_past_the_gate(promoted):
    """A champion that was deleted past the gate is named, and can be let go of; then another one is promoted."""
    promoted.plain.delete_model_version(NAME, "2")
    assert any("Alias champion is on no version" in problem for problem in verify(promoted))
    with pytest.raises(GateFailed, match=f"medvision archive {NAME}/2"):
        promote(promoted.client, NAME, 1)
    assert archive(promoted.client, NAME, 2).alias == "champion"
    promote(promoted.client, NAME, 1)
    assert verify(promoted) == ["Version 2 was champion, and is gone: it was deleted past the gate."]


def test_the_way_back_to_the_gate(promoted):
    """After a change past the gate nothing is promoted until the impostor is withdrawn; then all is in order."""
    third = promoted.approved(3)
    promoted.plain.set_registered_model_alias(NAME, "champion", str(third))
    with pytest.raises(GateFailed, match=f"changed past the gate.*medvision archive {NAME}/{third}"):
        promote(promoted.client, NAME, 1)
    promoted.client.delete_registered_model_alias(NAME, "champion")
    promote(promoted.client, NAME, 2)
    assert verify(promoted) == []
