"""Who holds the aliases of a registered model: what its signed ledger says, whatever the aliases themselves say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.registry.answers import translated
from medvision.registry.ledger import CHALLENGER, CHAMPION, check_chain, holders
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
    return Holders(told.get(CHAMPION), told.get(CHALLENGER), problem)
