"""Every door of the registry, tried from Python: only a version that nothing stands against gets through."""

import shutil
import time

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from registry_cases import BAD, NAME, POLICIES, SAID, change_policies

from medvision.errors import ConfigInvalid, GateFailed, PromotionConflict
from medvision.registry.promotion import approve, archive, attest, promote, read_ledger, rollback
from medvision.registry.requests import render_request
from medvision.registry.verification import check_registry
from medvision.validation.keys import load_trusted_keys

# Stages are on their way out of MLflow; as long as they are there they are a door.
pytestmark = pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")

# Each way to ask for a promotion.
DOORS = {
    f"{door} {alias}": (ask, alias)
    for alias, stage in (("champion", "Production"), ("challenger", "Staging"))
    for door, ask in {
        "request": lambda client, n, alias=alias: client.set_model_version_tag(
            NAME, n, "medvision.request", render_request("promote", to=alias)
        ),
        "alias": lambda client, n, alias=alias: client.set_registered_model_alias(NAME, alias, n),
        "stage": lambda client, n, stage=stage: client.transition_model_version_stage(NAME, n, stage),
        "stage, in small letters": lambda client, n, stage=stage: client.transition_model_version_stage(
            NAME, n, stage.lower(), archive_existing_versions=True
        ),
    }.items()
}


def refused(ask, code="PERMISSION_DENIED"):
    """Ask for something that must be refused, within a second of this process's work; return the message."""
    begun = time.process_time()
    with pytest.raises(MlflowException) as raised:
        ask()
    assert time.process_time() - begun < 1
    assert raised.value.error_code == code, raised.value
    return raised.value.message


def verified(registry):
    """Return what the verification finds."""
    return check_registry(registry.client, NAME, load_trusted_keys(registry.state))


@pytest.mark.parametrize("kind", BAD)
def test_no_door_lets_a_bad_version_through(kind, registry):
    """A bad version is refused at every door, with the rule, what is required and found, and what to run next."""
    make, rule = BAD[kind]
    number = make(registry)
    registry.set(approvals=0)
    for ask, alias in DOORS.values():
        message = refused(lambda ask=ask: ask(registry.client, str(number)))
        assert f"{NAME} version {number} may not become {alias}. Rule: {rule}. Required: " in message
        assert "Found: " in message and "Next: " in message and "medvision" in message.partition("Next: ")[2]
    assert registry.state_of() == ({}, {})
    assert {entry.action for entry in read_ledger(registry.client, NAME)} == {"register"}
    assert verified(registry) == []


@pytest.mark.parametrize("door", DOORS)
def test_every_door_lets_a_good_version_through(door, registry):
    """A good version gets through each door; alias, stage and ledger agree, and the one before is archived."""
    ask, alias = DOORS[door]
    registry.set(champion=["staging"])
    first, second = registry.approved(1), registry.approved(2)
    stage = {"champion": "Production", "challenger": "Staging"}[alias]
    for number in (first, second):
        begun = time.process_time()
        ask(registry.client, str(number))
        assert time.process_time() - begun < 2
    assert registry.state_of() == ({alias: second}, {first: "Archived", second: stage})
    entry = read_ledger(registry.client, NAME)[-1]
    assert (entry.action, entry.alias, entry.version, entry.replaced) == ("promote", alias, second, first)
    assert verified(registry) == []


def test_a_promoted_challenger_is_no_challenger_any_more(registry):
    """Who becomes champion loses the alias challenger; asking for it again is refused."""
    number = registry.approved()
    promote(registry.client, NAME, number, to="challenger")
    assert registry.state_of() == ({"challenger": number}, {number: "Staging"})
    promote(registry.client, NAME, number)
    assert registry.state_of() == ({"champion": number}, {number: "Production"})
    with pytest.raises(GateFailed, match="Rule: order"):
        promote(registry.client, NAME, number, to="challenger")


def test_a_promotion_to_where_it_is_changes_nothing(registry):
    """The champion can be made champion again: no entry is added."""
    number = registry.crown()
    before = read_ledger(registry.client, NAME)
    assert promote(registry.client, NAME, number) == before[-1]
    assert read_ledger(registry.client, NAME) == before


def test_policies_that_have_changed(registry):
    """Once the gate's own policies change, older verdicts are outdated."""
    number = registry.approved()
    change_policies(registry)
    with pytest.raises(GateFailed, match=r"Rule: policy.*medvision validate --policy production"):
        promote(registry.client, NAME, number)


def test_another_test_set(registry):
    """The test set of a model's first promotion is the one of all later ones, unless the settings name others."""
    registry.crown(1)
    other = {p: registry.signed(2, p, test_fingerprint="9" * 64) for p in POLICIES}
    number = registry.register(2, other)
    with pytest.raises(GateFailed, match=r"Rule: test_set.*dddddddddddd.*Found: 999999999999"):
        promote(registry.client, NAME, number, to="challenger")
    registry.set(test_sets=["9" * 64])
    promote(registry.client, NAME, number, to="challenger")


def test_a_verdict_against_another_champion(registry):
    """Where the policy compares with the champion, a verdict that was made against another one is outdated."""
    registry.crown(1)
    number = registry.approved(2)
    with pytest.raises(GateFailed, match=r"Rule: non_inferiority.*against no champion: outdated"):
        promote(registry.client, NAME, number)
    digest = registry.package(1)[1]
    registry.attach(
        registry.client.get_model_version(NAME, str(number)).source.removeprefix("models:/"),
        "production",
        registry.signed(2, champion_digest=digest),
    )
    approve(registry.client, NAME, number, **SAID)
    promote(registry.client, NAME, number)


def test_reserved_tags(registry):
    """Nobody but the gate sets or deletes its tags, in any case: on a version, on a model, or at their creation."""
    number = str(registry.register(semantic="1.0.0"))
    client = registry.client
    before = client.get_model_version(NAME, number).tags
    for key in ("medvision.verdict", "Medvision.Verdict", "medvision.new", "version", "test_accuracy"):
        for ask in (
            lambda key=key: client.set_model_version_tag(NAME, number, key, "passed"),
            lambda key=key: client.delete_model_version_tag(NAME, number, key),
            lambda key=key: client.set_registered_model_tag(NAME, key, "passed"),
            lambda key=key: client.delete_registered_model_tag(NAME, key),
            lambda key=key: client.create_registered_model("another", tags={key: "passed"}),
        ):
            assert "Rule: reserved tags" in refused(ask)
    source = client.get_model_version(NAME, number).source
    for key in ("medvision.verdict", "medvision.request", "test_accuracy"):
        ask = lambda key=key: client.create_model_version(NAME, source, tags={key: "passed"})  # noqa: E731
        assert "Rule: reserved tags" in refused(ask)
    client.set_model_version_tag(NAME, number, "production", "ready")
    assert client.get_model_version(NAME, number).tags == {**before, "production": "ready"}


def test_other_aliases_and_tags_are_free(registry):
    """Aliases and tags that stand for nothing of ours are set and deleted as ever."""
    number = str(registry.register())
    registry.client.set_registered_model_alias(NAME, "shadow", number)
    assert registry.client.get_model_version_by_alias(NAME, "shadow").version == int(number)
    registry.client.delete_registered_model_alias(NAME, "shadow")
    registry.client.set_registered_model_tag(NAME, "team", "neuro")
    registry.client.delete_registered_model_tag(NAME, "team")
    assert registry.state_of() == ({}, {})


def test_aliases_that_look_like_ours(registry):
    """An alias that could be taken for champion, or for a semantic version, is refused."""
    number = str(registry.register())
    for alias in ("Champion", "CHALLENGER"):
        refused(lambda alias=alias: registry.client.set_registered_model_alias(NAME, alias, number),
                "INVALID_PARAMETER_VALUE")  # fmt: skip
    for alias in ("v1-0-0", "V2-0-0"):
        refused(lambda alias=alias: registry.client.set_registered_model_alias(NAME, alias, number))
        refused(lambda alias=alias: registry.client.delete_registered_model_alias(NAME, alias))


def test_a_semantic_version_is_given_once(registry):
    """A semantic version has its alias from the start, is never given again, and is MAJOR.MINOR.PATCH."""
    number = registry.register(semantic="1.0.0")
    assert registry.state_of()[0] == {"v1-0-0": number}
    model_id = registry.log(2)
    message = refused(lambda: registry.create(model_id, "1.0.0"), "RESOURCE_CONFLICT")
    assert "1.0.0 is registered already" in message
    for wrong in ("1.0", "v1.0.0", "01.0.0", "1.0.0-rc1", ""):
        refused(lambda wrong=wrong: registry.create(model_id, wrong), "INVALID_PARAMETER_VALUE")
    registry.client.delete_model_version(NAME, str(number))
    refused(lambda: registry.create(model_id, "1.0.0"), "RESOURCE_CONFLICT")
    assert registry.create(model_id, "1.0.1") == number + 1
    assert verified(registry) == []


def test_deleted_and_made_again(registry):
    """A model that was promoted is neither deleted nor renamed; one that was not starts with nothing to its credit."""
    registry.register(1, semantic="1.0.0")
    registry.client.delete_registered_model(NAME)
    registry.client.create_registered_model(NAME)
    number = registry.register(2, semantic="1.1.0")
    assert number == 1
    with pytest.raises(GateFailed, match="Rule: approvals"):
        promote(registry.client, NAME, number)
    approve(registry.client, NAME, number, **SAID)
    promote(registry.client, NAME, number)
    assert verified(registry) == []
    assert "Rule: history" in refused(lambda: registry.client.delete_registered_model(NAME))
    assert "Rule: history" in refused(lambda: registry.client.rename_registered_model(NAME, "other"))


def test_renamed(registry):
    """A model with a ledger is not renamed, nor does another get its name: the ledger would tell of another model."""
    registry.client.create_registered_model("empty")
    registry.client.rename_registered_model("empty", "other")
    number = registry.register()
    assert "Rule: history" in refused(lambda: registry.client.rename_registered_model(NAME, "new"))
    registry.client.delete_model_version(NAME, str(number))
    registry.client.delete_registered_model(NAME)
    assert "Rule: history" in refused(lambda: registry.client.rename_registered_model("other", NAME))


def test_copies(registry):
    """A copy is refused; what is made of another version by hand can't be promoted."""
    number = registry.crown()
    version = registry.client.get_model_version(NAME, str(number))
    assert "Rule: copies" in refused(lambda: registry.client.copy_model_version(f"models:/{NAME}/{number}", "copy"))
    copy = registry.client.create_model_version(NAME, f"models:/{NAME}/{number}", run_id=version.run_id)
    message = refused(lambda: registry.client.set_registered_model_alias(NAME, "challenger", copy.version))
    assert "Rule: source" in message


@pytest.mark.parametrize("source", ["runs:/0123456789abcdef0123456789abcdef/model", "/etc", "s3://bucket/model"])
def test_other_sources(source, registry):
    """A version that was made of anything but a logged model can be registered, and never be promoted."""
    made = registry.client.create_model_version(NAME, source)
    assert made.tags["medvision.verdict"] == "none"
    message = refused(lambda: registry.client.set_registered_model_alias(NAME, "challenger", made.version))
    assert "Rule: source" in message and "medvision register" in message


def test_a_version_in_use_is_not_deleted(registry):
    """Challenger, champion and former champions stay; another version can be deleted."""
    first = registry.crown(1)
    registry.set(champion=["staging"])
    second, third = registry.approved(2), registry.register(3)
    promote(registry.client, NAME, second)
    fourth = registry.register(4)
    promote(registry.client, NAME, fourth, to="challenger")
    for number, what in ((first, "a former champion"), (second, "the champion"), (fourth, "the challenger")):
        assert what in refused(lambda number=number: registry.client.delete_model_version(NAME, str(number)))
    registry.client.delete_model_version(NAME, str(third))
    assert verified(registry) == []


@pytest.mark.parametrize("door", ["request", "alias", "stage Archived", "stage None"])
def test_withdrawn(door, registry):
    """A champion is withdrawn at every door without any condition, and it stands in the ledger."""
    number = registry.crown()
    change_policies(registry)
    for path in registry.files(number).rglob("weights.safetensors"):
        path.unlink()
    if door == "request":
        archive(registry.client, NAME, number, reason="It misses small tumours.")
    elif door == "alias":
        registry.client.delete_registered_model_alias(NAME, "champion")
    else:
        registry.client.transition_model_version_stage(NAME, str(number), door.split()[1])
    assert registry.state_of() == ({}, {number: "Archived"})
    entry = read_ledger(registry.client, NAME)[-1]
    assert (entry.action, entry.alias, entry.version) == ("archive", "champion", number)
    assert verified(registry) == []


def test_a_later_verdict(registry):
    """A version that was registered without a verdict shows it, and can be promoted, once it was attested."""
    number = registry.register(verdicts={})
    assert registry.client.get_model_version(NAME, str(number)).tags["medvision.verdict"] == "none"
    model_id = registry.client.get_model_version(NAME, str(number)).source.removeprefix("models:/")
    registry.attach(model_id, "staging", registry.signed(policy="staging"))
    assert attest(registry.client, NAME, number).policy == "staging"
    tags = registry.client.get_model_version(NAME, str(number)).tags
    assert (tags["medvision.verdict"], tags["medvision.grade"], tags["test_accuracy"]) == (
        "passed", "excellent", "0.9500",
    )  # fmt: skip
    promote(registry.client, NAME, number, to="challenger")


@pytest.mark.parametrize(
    "text",
    ["", "promote", "[]", "{}", '{"action": "crown"}', '{"action": "promote", "to": "king"}', "[" * 100_000,
     '{"action": "promote", "force": true}', '{"action": "promote", "replacing": "1"}'],
)  # fmt: skip
def test_a_request_that_is_none(text, registry):
    """What the gate does not understand is refused as a bad request, and never stored."""
    number = str(registry.register())
    message = refused(
        lambda: registry.client.set_model_version_tag(NAME, number, "medvision.request", text),
        "INVALID_PARAMETER_VALUE",
    )
    assert "expects JSON" in message
    assert "medvision.request" not in registry.client.get_model_version(NAME, number).tags


def test_someone_was_quicker(registry):
    """Who asks for another champion than the one that is there now gets a conflict, exit 4, and changes nothing."""
    first = registry.crown(1)
    second = registry.approved(2)
    before = registry.state_of(), read_ledger(registry.client, NAME)
    for replacing in (None, 7):
        with pytest.raises(PromotionConflict, match=f"is version {first} now") as raised:
            promote(registry.client, NAME, second, replacing=replacing)
        assert raised.value.exit_code == 4
    assert (registry.state_of(), read_ledger(registry.client, NAME)) == before


def test_a_registry_without_the_gate(registry):
    """Where there is no gate nothing is asked, and the message says how to have one."""
    number = registry.register()
    with pytest.raises(ConfigInvalid, match="has no gate"):
        promote(registry.plain, NAME, number)
    assert "medvision.request" not in registry.client.get_model_version(NAME, str(number)).tags


def test_another_project(registry, tmp_path, monkeypatch):
    """From another folder, whose keys are not those of the ledger, nothing is registered in it."""
    registry.register()
    shutil.copy(registry.folder / "MLproject", tmp_path)
    shutil.copytree(registry.folder / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MlflowException, match="registry of another project"):
        registry.client.create_model_version(NAME, "/etc")
    assert not (tmp_path / ".medvision" / "keys" / "signing.key").exists()


def test_loaded_past_the_gate(registry):
    """What can be changed past the gate can't be answered with: MLflow loads it, and it refuses."""
    number = registry.register(verdicts={})
    registry.plain.set_registered_model_alias(NAME, "champion", str(number))
    mlflow.set_tracking_uri(registry.database)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
        with pytest.raises(MlflowException, match="refuses to answer"):
            loaded.predict([{"image": "aGVsbG8="}])
    finally:
        mlflow.set_tracking_uri(None)


def test_rollback(registry):
    """A rollback goes to the champion before, whatever policies say by now, and needs a reason; withdrawn ones stay."""
    registry.set(champion=["staging"])
    numbers = [registry.approved(seed) for seed in (1, 2, 3)]
    for number in numbers:
        promote(registry.client, NAME, number)
    change_policies(registry)
    with pytest.raises(ConfigInvalid, match="a reason"):
        rollback(registry.client, NAME, reason=" ")
    entry = rollback(registry.client, NAME, reason="Worse on the new scanner.")
    assert (entry.action, entry.version, entry.replaced) == ("rollback", numbers[1], numbers[2])
    assert registry.state_of() == (
        {"champion": numbers[1]}, {numbers[0]: "Archived", numbers[1]: "Production", numbers[2]: "Archived"}
    )  # fmt: skip
    archive(registry.client, NAME, numbers[1], reason="Unsafe.")
    assert rollback(registry.client, NAME, reason="Back to what is known.").version == numbers[0]
    with pytest.raises(GateFailed, match="no champion to go back to"):
        rollback(registry.client, NAME, reason="Further.")
    assert verified(registry) == []


@pytest.mark.parametrize("door", ["request", "alias"])
def test_rollback_to_what_was_touched(door, registry):
    """A former champion whose weights were touched does not come back."""
    registry.set(champion=["staging"])
    first, second = registry.approved(1), registry.approved(2)
    for number in (first, second):
        promote(registry.client, NAME, number)
    path = registry.files(first) / "artifacts" / "package" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises((GateFailed, MlflowException), match="Rule: package"):
        if door == "request":
            rollback(registry.client, NAME, reason="Back.")
        else:
            registry.client.set_registered_model_alias(NAME, "champion", str(first))
    assert registry.state_of()[0] == {"champion": second}
