"""Promotions, asked of a gated registry by any MLflow client: of a server, or of a database on this machine.

MLflow's errors become medvision's. A registry without the gate is refused: it would keep the request as a mere tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvision.errors import ConfigInvalid, GateFailed
from medvision.registry.answers import place, translated
from medvision.registry.ledger import CHAMPION, Entry, parse, read_chain, rollback_target
from medvision.registry.requests import LEDGER_TAG, TAG, UNSAID, Action, Unsaid, render_request

if TYPE_CHECKING:
    from mlflow import MlflowClient


def promote(
    client: MlflowClient,
    name: str,
    version: int,
    *,
    to: str = CHAMPION,
    replacing: int | Unsaid | None = UNSAID,
    meaning: str = "",
    reason: str = "",
) -> Entry:
    """Make a version champion or challenger; return the entry in the ledger.

    Parameters
    ----------
    replacing: the holder that the asker has seen, None for none; whichever it is, if unsaid.

    Raises
    ------
    GateFailed: a rule is not met; the message says which, and what to run next.
    PromotionConflict: another version holds the alias by now. Nothing was changed.
    ConfigInvalid: there is no such version, or the registry has no gate.
    TrackingUnavailable: the registry does not answer.
    """
    seen = {} if isinstance(replacing, Unsaid) else {"replacing": replacing}
    return _ask(client, name, version, "promote", to=to, meaning=meaning, reason=reason, **seen)


def rollback(client: MlflowClient, name: str, *, reason: str, meaning: str = "") -> Entry:
    """Return to the last champion before the present one; errors as of ``promote``."""
    target, present = rollback_target(read_ledger(client, name)), holder(client, name, CHAMPION)
    if target is None:
        raise GateFailed(
            f"{name} has no champion to go back to: none before the present one, or all were withdrawn. "
            f"Run: medvision promote {name}/VERSION"
        )
    return _ask(client, name, target, "rollback", meaning=meaning, reason=reason, replacing=present)


def archive(client: MlflowClient, name: str, version: int, *, reason: str = "", meaning: str = "") -> Entry:
    """Take a version out of use, champion or not; errors as of ``promote``, but no rule can refuse it."""
    return _ask(client, name, version, "archive", meaning=meaning, reason=reason)


def approve(client: MlflowClient, name: str, version: int, *, meaning: str, reason: str) -> Entry:
    """Approve a version as champion, in the name of the user whom the registry knows; errors as of ``promote``."""
    return _ask(client, name, version, "approve", meaning=meaning, reason=reason)


def attest(client: MlflowClient, name: str, version: int, *, reason: str = "") -> Entry:
    """Let the gate read the verdicts beside a version again, and write its tags; errors as of ``promote``."""
    return _ask(client, name, version, "attest", reason=reason)


def read_ledger(client: MlflowClient, name: str) -> list[Entry]:
    """Return the entries of a model's ledger, in order.

    Raises LedgerBroken if one is missing or can't be read, ConfigInvalid and TrackingUnavailable as ``promote``.
    """
    return read_chain(name, read_ledger_texts(client, name))


def read_ledger_texts(client: MlflowClient, name: str) -> dict[int, str]:
    """Return the entries of a model's ledger as they stand in the registry, unchecked; errors as ``read_ledger``."""
    with translated(client):
        # A quote in a name ends the filter: MLflow refuses it, and no ledger can be asked for by such a name.
        found = client.search_registered_models(f"name = '{name}' AND tag.`{LEDGER_TAG}` = 'all'")
    if not found:
        raise ConfigInvalid(
            f"The registry at {place(client)} has no gate, or no model {name}. Start the server with: medvision ui; "
            "on a database use a URI that begins with medvision+"
        )
    return {int(sequence): text for sequence, text in found[0].tags.items()}


def holder(client: MlflowClient, name: str, alias: str) -> int | None:
    """Return the version that holds an alias now, None if none does; errors as ``read_ledger``."""
    with translated(client):
        number = client.get_registered_model(name).aliases.get(alias)
    return None if number is None else int(number)


def _ask(client: MlflowClient, name: str, version: int, action: Action, **parts: Any) -> Entry:
    before = max(read_ledger_texts(client, name), default=0)
    with translated(client):
        client.set_model_version_tag(name, str(version), TAG, render_request(action, **parts))
    # Entries that can't be read are passed over: what was asked for is done, also on a broken ledger.
    entries = [entry for entry in map(parse, read_ledger_texts(client, name).values()) if entry is not None]
    told = [entry for entry in entries if entry.version == version]
    made = [entry for entry in told if entry.action == action]
    # What is so already makes no entry: then it is the one that made it so.
    return next((entry for entry in made if entry.sequence > before), (made or told)[-1])
