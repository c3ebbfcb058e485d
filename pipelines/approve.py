"""Approve a version as champion, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.registry import OneVersion, describe, find_version, open_registry

if TYPE_CHECKING:
    from medvision.registry.ledger import Entry

Meaning = Annotated[str, typer.Option(help="What your approval says: 'reviewed the report as radiologist'.")]
Reason = Annotated[str, typer.Option(help="Why you give it.")]


def approve(model: OneVersion, meaning: Meaning, reason: Reason, config: ConfigFile = None, set_: Set = None) -> Entry:
    """Approve a version as champion, in the name of whom the registry knows you as."""
    from medvision.registry.promotion import approve as ask

    client = open_registry(configure(config, None, set_))
    version = find_version(client, model)
    entry = ask(client, version.name, version.number, meaning=meaning, reason=reason)
    say(describe(entry))
    say(f"{entry.who} has approved {version.name} version {version.number}.")
    return entry


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(approve)
