"""Whether a model's ledger is whole, and aliases and stages are what it tells: what passed the gate by is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.errors import LedgerBroken
from medvision.registry.answers import translated
from medvision.registry.ledger import CHALLENGER, CHAMPION, Entry, check_chain, holders, read_chain, was_champion
from medvision.registry.promotion import read_ledger_texts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_STAGES = {CHAMPION: ("Production",), CHALLENGER: ("Staging",), None: ("None", "Archived")}


def check_registry(client: MlflowClient, name: str, trusted: Mapping[str, Ed25519PublicKey]) -> list[str]:
    """Return what is wrong with a registered model, nothing if all is right; a broken ledger is named alone.

    Raises ConfigInvalid if there is no such model or no gate, TrackingUnavailable if the registry does not answer.
    """
    texts = read_ledger_texts(client, name)
    try:
        entries = read_chain(name, texts)
        check_chain(entries, trusted)
    except LedgerBroken as error:
        return [str(error)]
    with translated(client):
        aliases = {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
        versions = {int(found.version): found for found in _search(client, name)}
    return [
        *_check_aliases(entries, aliases),
        *_check_stages(holders(entries), versions),
        *_check_versions(entries, aliases, versions),
    ]


def _search(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _check_aliases(entries: Sequence[Entry], aliases: Mapping[str, int]) -> Iterator[str]:
    told = holders(entries)
    for alias in (CHAMPION, CHALLENGER):
        if aliases.get(alias) != told.get(alias):
            yield (
                f"Alias {alias} is on {_named(aliases.get(alias))}, but the ledger says {_named(told.get(alias))}: it "
                "was changed past the gate, or the end of the ledger was cut off."
            )


def _check_stages(told: Mapping[str, int], versions: Mapping[int, ModelVersion]) -> Iterator[str]:
    expected = {version: alias for alias, version in told.items()}
    for number, version in sorted(versions.items()):
        if version.current_stage not in _STAGES[expected.get(number)]:
            yield (
                f"Version {number} is in stage {version.current_stage}, but the ledger says that it is "
                f"{expected.get(number, 'neither champion nor challenger')}: it was changed past the gate."
            )


def _check_versions(
    entries: Sequence[Entry], aliases: Mapping[str, int], versions: Mapping[int, ModelVersion]
) -> Iterator[str]:
    for number in sorted({entry.version for entry in entries} - set(versions)):
        if was_champion(entries, number):
            yield f"Version {number} was champion, and is gone: it was deleted past the gate."
    # The last entry of each: numbers begin again when a model that was never promoted is deleted and made anew.
    registered = {entry.version: entry.alias for entry in entries if entry.action == "register"}
    for number, alias in registered.items():
        if alias and number in versions and aliases.get(alias) != number:
            yield f"Alias {alias} is on {_named(aliases.get(alias))}, but the ledger says version {number}."


def _named(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"
