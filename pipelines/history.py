"""Say who did what to the versions of a model, when, why and on what evidence; and check that it is all there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.registry import ModelName, describe, open_registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from medvision.config import Config
    from medvision.registry.ledger import Entry

At = Annotated[
    datetime | None,
    typer.Option(help="Say which version was champion at this time, UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
]


@dataclass(frozen=True)
class History:
    """The ledger of a model, and its champion: at the time that was asked for, else now."""

    name: str
    champion: int | None
    entries: tuple[Entry, ...]


def history(model: ModelName, at: At = None, config: ConfigFile = None, set_: Set = None) -> History:
    """Show who did what to a model's versions, and check that aliases and stages are what the ledger tells."""
    from medvision.registry.ledger import who_was_champion
    from medvision.registry.promotion import read_ledger

    settings = configure(config, None, set_)
    client = open_registry(settings)
    entries = read_ledger(client, model)
    for entry in entries:
        say(describe(entry))
    when = at.replace(tzinfo=timezone.utc) if at else datetime.now(timezone.utc)
    champion = who_was_champion(entries, when)
    say(f"Champion {f'at {at:%Y-%m-%d %H:%M:%S}Z' if at else 'now'}: "
        f"{'none' if champion is None else f'version {champion}'}")  # fmt: skip
    _check(client, model, settings, len(entries))
    return History(model, champion, tuple(entries))


def _check(client: MlflowClient, model: str, config: Config, n_entries: int) -> None:
    from medvision.errors import GateFailed
    from medvision.registry.verification import check_registry
    from medvision.validation.keys import load_trusted_keys

    found = check_registry(client, model, load_trusted_keys(config.paths.state))
    if found:
        raise GateFailed(f"{model} is not as its ledger says. {' '.join(found)}")
    say(f"{n_entries} entries, each signed and in its place; aliases and stages are what they tell.")


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(history)
