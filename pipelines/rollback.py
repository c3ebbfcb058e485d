"""Return to the champion before the present one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.registry import ModelName, Reason, describe, open_registry

if TYPE_CHECKING:
    from medvision.registry.ledger import Entry


def rollback(model: ModelName, reason: Reason, config: ConfigFile = None, set_: Set = None) -> Entry:
    """Make the last champion before the present one champion again."""
    from medvision.registry.promotion import rollback as ask

    client = open_registry(configure(config, None, set_))
    entry = ask(client, model, reason=reason)
    say(describe(entry))
    say(f"{model} version {entry.version} is champion again.")
    return entry


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(rollback)
