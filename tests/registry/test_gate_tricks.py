"""Ways round the gate that once led somewhere: each is refused, and a withdrawal is possible in any case."""

import shutil

import pytest
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException
from registry_cases import NAME, POLICIES, SAID

from medvision.errors import ConfigInvalid, GateFailed, PromotionConflict, TrackingUnavailable
from medvision.registry import registrar
from medvision.registry.ledger import Entry
from medvision.registry.promotion import approve, archive, attest, promote, read_ledger, rollback
from medvision.registry.verification import check_registry
from medvision.validation.keys import keys_dir, load_trusted_keys, make_key
from pipelines.registry import describe

LATER = "2026-11-22T12:00:00+00:00"


def model_id(registry, number):
    """Return the logged model of a version."""
    return registry.client.get_model_version(NAME, str(number)).source.removeprefix("models:/")


def code_of(ask):
    """Ask for something that must be refused; return MLflow's code."""
    with pytest.raises(MlflowException) as raised:
        ask()
    return raised.value.error_code


def exchange_after(name, registry, monkeypatch):
    """Have the version deleted and another one made under its number, as soon as it was judged."""
    judge = getattr(registrar, name)

    def judge_and_exchange(*arguments):
        monkeypatch.setattr(registrar, name, judge)
        proof = judge(*arguments)
        registry.client.delete_registered_model(NAME)
        registry.client.create_registered_model(NAME)
        registry.register(2, verdicts={})
        return proof

    monkeypatch.setattr(registrar, name, judge_and_exchange)


@pytest.mark.parametrize(
    ("judge", "ask"),
    [
        ("check_promotion", lambda client: promote(client, NAME, 1)),
        ("check_approval", lambda client: approve(client, NAME, 1, **SAID)),
        ("last_proof", lambda client: attest(client, NAME, 1)),
    ],
)
def test_exchanged_while_it_is_judged(judge, ask, registry, monkeypatch):
    """A version that is deleted and made again during a promotion gets nothing of what the first one has shown."""
    registry.set(approvals=0)
    registry.register()
    exchange_after(judge, registry, monkeypatch)
    with pytest.raises(PromotionConflict, match="deleted and made again"):
        ask(registry.client)
    assert registry.state_of() == ({}, {})
    assert registry.client.get_model_version(NAME, "1").tags["medvision.verdict"] == "none"


def test_an_approved_model_is_not_deleted(registry):
    """A model that has approvals is not deleted: its numbers would begin again."""
    registry.approved()
    with pytest.raises(MlflowException, match=r"Rule: history.*approvals"):
        registry.client.delete_registered_model(NAME)


def test_a_tag_that_is_given_twice(registry):
    """Of two tags of one name neither counts: the one that is checked might not be the one that is kept."""
    tags = [ModelVersionTag("version", "1.0.0"), ModelVersionTag("version", "banana")]
    assert code_of(lambda: registry.store.create_model_version(NAME, "/etc", tags=tags)) == "INVALID_PARAMETER_VALUE"


def test_approved_before_it_was_withdrawn(registry):
    """A champion that was withdrawn comes back only with a new approval."""
    number = registry.crown()
    archive(registry.client, NAME, number, reason="Unsafe.")
    with pytest.raises(GateFailed, match="Rule: approvals"):
        promote(registry.client, NAME, number)
    approve(registry.client, NAME, number, **SAID)
    promote(registry.client, NAME, number)


def test_approved_before_it_was_judged(registry):
    """An approval is of a verdict: there is none without one that is passed, and it ends with a new one."""
    number = registry.register(verdicts={"staging": registry.signed(policy="staging")})
    with pytest.raises(GateFailed, match=r"Rule: verdict.*production.*Found: none"):
        approve(registry.client, NAME, number, **SAID)
    registry.attach(model_id(registry, number), "production", registry.signed())
    approve(registry.client, NAME, number, **SAID)
    registry.attach(model_id(registry, number), "production", registry.signed(made_at=LATER))
    with pytest.raises(GateFailed, match="Rule: approvals"):
        promote(registry.client, NAME, number)


def test_nobody_has_trained_it(registry):
    """Where duties are separated, a model of which nobody knows who trained it is neither approved nor promoted."""
    approved, number = registry.approved(1), registry.register(2)
    for each in (approved, number):
        run = registry.client.get_logged_model(model_id(registry, each)).source_run_id
        registry.client.delete_tag(run, "mlflow.user")
    registry.set(separation_of_duties=True)
    with pytest.raises(GateFailed, match=r"Rule: separation_of_duties.*mlflow\.user"):
        approve(registry.client, NAME, number, **SAID)
    with pytest.raises(GateFailed, match="Rule: separation_of_duties"):
        promote(registry.client, NAME, approved)


def test_no_champion_to_be_compared_with(registry):
    """Withdrawing the champion without a word does not spare the next one the comparison with it."""
    first, second = registry.crown(1), registry.approved(2)
    registry.client.delete_registered_model_alias(NAME, "champion")
    with pytest.raises(GateFailed, match=rf"Rule: non_inferiority.*the last champion.*archive {NAME}/{first} --reason"):
        promote(registry.client, NAME, second)
    archive(registry.client, NAME, first, reason="It misses small tumours.")
    promote(registry.client, NAME, second)


def test_a_champion_is_not_hidden(registry):
    """The tag by which MLflow leaves prompts out of its lists can't be set on a model or a version."""
    number, key = registry.crown(), "mlflow.prompt.is_prompt"
    for ask in (
        lambda: registry.client.set_model_version_tag(NAME, str(number), key, "true"),
        lambda: registry.client.set_registered_model_tag(NAME, key, "true"),
    ):
        assert code_of(ask) == "PERMISSION_DENIED"
    assert [found.name for found in registry.client.search_registered_models()] == [NAME]


def test_a_later_verdict_that_is_not_passed(registry):
    """The last verdict counts for a rollback, also under another policy, and an older one in a file of its own not."""
    registry.set(champion=["staging"])
    first, second = registry.approved(1), registry.approved(2)
    for number in (first, second):
        promote(registry.client, NAME, number)
    failed = registry.signed(1, "production", state="failed", made_at=LATER)
    registry.attach(model_id(registry, first), "production", failed)
    registry.attach(model_id(registry, first), "zz", registry.signed(1, "staging", made_at=LATER))
    with pytest.raises(GateFailed, match=r"Rule: verdict.*failed under policy production"):
        rollback(registry.client, NAME, reason="Back.")
    attest(registry.client, NAME, first)
    assert registry.client.get_model_version(NAME, str(first)).tags["medvision.verdict"] == "failed"


def test_a_challenger_that_has_failed_since(registry):
    """What the last verdict says counts for a challenger too, whatever its policy: loading would refuse it."""
    failed = registry.signed(1, "production", state="failed", made_at=LATER)
    number = registry.register(verdicts={"staging": registry.signed(1, "staging"), "production": failed})
    with pytest.raises(GateFailed, match=r"Rule: verdict.*failed under policy production"):
        promote(registry.client, NAME, number, to="challenger")
    registry.attach(
        model_id(registry, number), "staging", registry.signed(1, "staging", made_at="2026-11-23T12:00:00+00:00")
    )
    promote(registry.client, NAME, number, to="challenger")


@pytest.mark.parametrize(
    "key", [" medvision.verdict", "\N{FULLWIDTH LATIN SMALL LETTER M}edvision.verdict", "version ", "Version", "free "]
)
def test_tags_that_look_like_the_gates(key, registry):
    """A tag that would be read as one of the gate's is refused, on a version and at its creation."""
    number = registry.register()
    for ask in (
        lambda: registry.client.set_model_version_tag(NAME, str(number), key, "passed"),
        lambda: registry.client.create_model_version(NAME, "/etc", tags={key: "passed"}),
    ):
        assert code_of(ask) in ("PERMISSION_DENIED", "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "alias",
    ["champion\n", "\N{FULLWIDTH LATIN SMALL LETTER C}hampion", "\N{CYRILLIC SMALL LETTER ES}hampion", "v1-0-0\n", ""],
)
def test_aliases_that_would_be_read_as_ours(alias, registry):
    """An alias that would be read as champion, or as a semantic version, is refused."""
    number = registry.register()
    ask = lambda: registry.store.set_registered_model_alias(NAME, alias, str(number))  # noqa: E731
    assert code_of(ask) in ("PERMISSION_DENIED", "INVALID_PARAMETER_VALUE")
    assert registry.state_of()[0] == {}


def test_the_tags_of_a_verdict_on_another_model(registry):
    """A verdict on another registered model says nothing for this one."""
    number = registry.register(verdicts={policy: registry.signed(policy=policy, model="other") for policy in POLICIES})
    assert registry.client.get_model_version(NAME, str(number)).tags["medvision.verdict"] == "none"


def test_a_new_key(registry):
    """After a new pair of keys was made the ledger is whole, and is written on."""
    number = registry.approved()
    (keys_dir(registry.state) / "signing.key").rename(registry.folder / "old.key")
    assert make_key(registry.state)[1]
    promote(registry.client, NAME, number)
    entries = read_ledger(registry.client, NAME)
    assert len({entry.key_id for entry in entries}) == 2
    assert check_registry(registry.client, NAME, load_trusted_keys(registry.state)) == []


def test_an_own_key_that_is_not_trusted(registry):
    """With a key that nobody trusts no entry is written: it would break the ledger."""
    (keys_dir(registry.state) / "signing.pub").unlink()
    with pytest.raises(MlflowException, match="medvision keys init"):
        registry.client.create_model_version(NAME, "/etc")
    assert read_ledger(registry.client, NAME) == []


def _lose_keys(registry):
    shutil.rmtree(keys_dir(registry.state))


def _open_folder(registry):
    keys_dir(registry.state).chmod(0o775)


def _break_settings(registry):
    registry.set(approvals=-1)


@pytest.mark.parametrize("spoil", [_lose_keys, _open_folder, _break_settings])
def test_withdrawn_in_any_case(spoil, registry):
    """A champion is withdrawn whatever has become of the gate's keys and settings."""
    number = registry.crown()
    spoil(registry)
    assert archive(registry.client, NAME, number, reason="Unsafe.").alias == "champion"
    assert registry.state_of() == ({}, {number: "Archived"})


def test_attested_without_anything_new(registry):
    """Attesting again what the ledger says already adds no entry, and answers with the one that said it."""
    number = registry.register()
    before = read_ledger(registry.client, NAME)
    assert attest(registry.client, NAME, number) == before[-1]
    registry.attach(model_id(registry, number), "production", registry.signed(made_at=LATER))
    made = attest(registry.client, NAME, number)
    assert attest(registry.client, NAME, number) == made
    assert read_ledger(registry.client, NAME) == [*before, made]


def test_numbers_and_sources_that_are_none(registry):
    """What names no version is a bad request."""
    for ask in (
        lambda: registry.client.set_registered_model_alias(NAME, "champion", "9" * 30),
        lambda: registry.client.create_model_version(NAME, "models:/nothing/1"),
        lambda: registry.client.create_model_version(NAME, "models:/"),
    ):
        assert code_of(ask) == "INVALID_PARAMETER_VALUE"


def test_a_database_that_is_not_well(registry):
    """A database that can't be written for another reason than a lock is not taken for somebody who was quicker."""
    number = registry.register()
    registry.sql("CREATE TRIGGER full BEFORE INSERT ON medvision_ledger BEGIN SELECT 1 FROM nowhere; END")
    with pytest.raises(TrackingUnavailable):
        archive(registry.client, NAME, number)


def test_a_former_champion_whose_logged_model_was_deleted(registry):
    """Deleting a logged model leaves its files, and its version can be gone back to."""
    registry.set(champion=["staging"])
    first, second = registry.approved(1), registry.approved(2)
    for number in (first, second):
        promote(registry.client, NAME, number)
    registry.client.delete_logged_model(model_id(registry, first))
    assert rollback(registry.client, NAME, reason="Back.").version == first


@pytest.mark.parametrize("sign", ["\n", "\x1b", "\u202e", "\u2028"])
def test_a_reason_of_several_lines(sign, registry):
    """A reason with control characters is refused: it could forge a line of the history, which shows none."""
    number = registry.register()
    reason = f"Unsafe.{sign}   9  2026-11-21  chief  promote version 1"
    with pytest.raises(ConfigInvalid, match="control characters"):
        archive(registry.client, NAME, number, reason=reason)
    line = describe(Entry(NAME, 1, "2026-11-21", "eve", "archive", number, reason=reason))
    assert sign not in line
