"""Take a version out of use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.registry import OneVersion, Reason, describe, find_version, open_registry

if TYPE_CHECKING:
    from medvision.registry.ledger import Entry


def archive(model: OneVersion, reason: Reason = "", config: ConfigFile = None, set_: Set = None) -> Entry:
    """Take a version out of use, champion or not; no rule refuses it."""
    from medvision.registry.promotion import archive as ask

    client = open_registry(configure(config, None, set_))
    version = find_version(client, model)
    entry = ask(client, version.name, version.number, reason=reason)
    say(describe(entry))
    say(f"{version.name} version {version.number} is out of use.")
    return entry


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(archive)
