"""The commands of the registry: what they print, and the exit codes of what the gate refuses."""

import contextlib
import io
import os
import signal
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from unittest import mock

import pytest
from registry_cases import NAME, SAID

from medvision.cli import main
from medvision.registry.promotion import approve


def call(*arguments):
    """Run a command of medvision in this process; return how it ended and what it said."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # MLflow leaves the store that was last asked in a variable.
        with (
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": "", "MLFLOW_REGISTRY_URI": ""}),
        ):  # fmt: skip
            main(list(arguments))
    except SystemExit as end:
        return SimpleNamespace(code=end.code, out=out.getvalue(), err=err.getvalue())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def promoted(registry, seed, semantic):
    """Register a version that nothing stands against, and promote it by command."""
    champion = registry.state_of()[0].get("champion")
    digest = registry.package(champion)[1] if champion else None
    verdicts = {"production": registry.signed(seed, champion_digest=digest)}
    number = registry.approved(seed, verdicts, semantic=semantic)
    ended = call("promote", f"{NAME}/{number}", "--reason", "Better.")
    assert ended.code == 0, ended.err
    return ended


def test_a_promotion_says_what_is_in_the_ledger(registry):
    """Who, what, on what evidence and why, and how the champion is served."""
    ended = promoted(registry, 1, "1.0.0")
    assert "promote version 1 to champion" in ended.out
    assert "production" in ended.out and "Better." in ended.out
    assert f'medvision serve "{NAME}@champion"' in ended.out
    assert registry.state_of() == ({"champion": 1, "v1-0-0": 1}, {1: "Production"})


def test_a_refusal_ends_with_3(registry):
    """A version without verdict: rule, required, found and next, on standard error, and nothing is changed."""
    registry.register(verdicts={})
    ended = call("promote", f"{NAME}/1")
    assert ended.code == 3
    assert ended.err.startswith("medvision: ")
    for part in ("Rule: verdict", "Required:", "Found: none", "Next: medvision validate --policy production"):
        assert part in ended.err
    assert registry.state_of() == ({}, {})


def test_another_champion_than_was_seen_ends_with_4(registry):
    """Who says which version is to be replaced is refused where another one is champion by now."""
    promoted(registry, 1, "1.0.0")
    registry.approved(2, {"production": registry.signed(2, champion_digest=registry.package(1)[1])})
    ended = call("promote", f"{NAME}/2", "--replacing", "7")
    assert ended.code == 4
    assert registry.state_of()[0]["champion"] == 1


def test_rollback_returns_to_the_champion_before(registry):
    """The champion before the present one is champion again, with a reason, and stages follow."""
    promoted(registry, 1, "1.0.0")
    promoted(registry, 2, "1.1.0")
    ended = call("rollback", NAME, "--reason", "Misses small tumours.")
    assert ended.code == 0, ended.err
    assert "version 1 is champion again" in ended.out
    aliases, stages = registry.state_of()
    assert aliases["champion"] == 1
    assert stages == {1: "Production", 2: "Archived"}


@pytest.mark.parametrize("named", ["1", "1.0.0", "@champion"])
def test_a_version_has_three_names(registry, named):
    """Its number, its semantic version and its alias name the same version."""
    promoted(registry, 1, "1.0.0")
    ended = call("archive", f"{NAME}{named}" if named[0] == "@" else f"{NAME}/{named}", "--reason", "Withdrawn.")
    assert ended.code == 0, ended.err
    assert registry.state_of() == ({"v1-0-0": 1}, {1: "Archived"})


def test_an_approval_carries_a_name(registry):
    """The account that approves is in the ledger, with what it means and why."""
    registry.register()
    ended = call("approve", f"{NAME}/1", "--meaning", "Reviewed as radiologist.", "--reason", "Errors are benign.")
    assert ended.code == 0, ended.err
    assert "has approved" in ended.out
    assert "Reviewed as radiologist.: Errors are benign." in ended.out


def test_history_tells_who_was_champion(registry):
    """At a time before the promotion there was no champion; now there is; and all is in its place."""
    promoted(registry, 1, "1.0.0")
    before = datetime.now(timezone.utc) - timedelta(days=1)
    assert "Champion at" in (ended := call("history", NAME, "--at", f"{before:%Y-%m-%dT%H:%M:%S}")).out
    assert "none" in ended.out
    now = call("history", NAME)
    assert now.code == 0, now.err
    assert "Champion now: version 1" in now.out
    assert "each signed and in its place" in now.out


def test_history_names_what_passed_the_gate_by(registry):
    """An alias that a plain client set in the database is named, with exit code 3."""
    promoted(registry, 1, "1.0.0")
    registry.register(2, verdicts={})
    registry.plain.set_registered_model_alias(NAME, "champion", "2")
    ended = call("history", NAME)
    assert ended.code == 3
    assert "Alias champion is on version 2, but the ledger says version 1" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", NAME), "Expected NAME/3, NAME/1.2.0 or NAME@champion"),
        (("promote", f"{NAME}/9"), "9"),
        (("promote", f"{NAME}/1", "--to", "champoin"), "champion"),
        (("history", "nobody"), "nobody"),
    ],
    ids=["no version", "unknown version", "unknown place", "unknown model"],
)
def test_what_is_not_there_ends_with_2(registry, arguments, said):
    """A mistake of one's own is named in a sentence, without a stack trace."""
    registry.register()
    ended = call(*arguments)
    assert ended.code == 2
    assert said in ended.err and "Traceback" not in ended.err


def test_the_command_is_what_the_function_is(registry):
    """What was approved by function is promoted by command: there is one ledger."""
    registry.register()
    approve(registry.client, NAME, 1, **SAID)
    assert call("promote", f"{NAME}/1").code == 0
