"""Who holds the aliases of a registered model: what its signed ledger says, whatever the aliases themselves say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.errors import ConfigInvalid
from medvision.registry.answers import translated
from medvision.registry.ledger import CHALLENGER, CHAMPION, MOVES, Entry, check_chain, holders
from medvision.registry.promotion import read_ledger
from medvision.serving.roster import Holders

if TYPE_CHECKING:
    from mlflow import MlflowClient


def look_at_holders(client: MlflowClient, name: str, trusted: Mapping[str, Ed25519PublicKey]) -> Holders:
    """Return the versions that the ledger of a model says are champion and challenger.

    Raises LedgerBroken: the ledger was edited. ConfigInvalid: no gate, or no such model. TrackingUnavailable.
    """
    entries = read_ledger(client, name)
    check_chain(entries, trusted)
    told = holders(entries)
    with translated(client):
        aliases = client.get_registered_model(name).aliases
    said = {alias: int(aliases[alias]) for alias in (CHAMPION, CHALLENGER) if alias in aliases}
    problem = "" if said == told else "alias_diverged"
    return Holders(told.get(CHAMPION), told.get(CHALLENGER), problem, _withdrawn(entries))


def look_at_version(client: MlflowClient, name: str, number: int, trusted: Mapping[str, Ed25519PublicKey]) -> Holders:
    """Return a version as if it were champion, unless it was withdrawn; a registry without a gate knows of none.

    Raises LedgerBroken, TrackingUnavailable as ``look_at_holders``.
    """
    try:
        entries = read_ledger(client, name)
    except ConfigInvalid:
        return Holders(number, None)
    check_chain(entries, trusted)
    withdrawn = _withdrawn(entries)
    return Holders(None if number in withdrawn else number, None, withdrawn=withdrawn)


def _withdrawn(entries: Sequence[Entry]) -> frozenset[int]:
    """Return the versions that were archived, and not promoted again since."""
    last = {entry.version: entry.action for entry in entries if entry.action in MOVES}
    return frozenset(version for version, action in last.items() if action == "archive")
