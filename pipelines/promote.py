"""Make a version challenger or champion, if the gate lets it through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure
from pipelines.registry import OneVersion, Reason, describe, find_version, open_registry

if TYPE_CHECKING:
    from medvision.registry.ledger import Entry

To = Annotated[str, typer.Option(help="champion (stage Production) or challenger (stage Staging).")]
Replacing = Annotated[
    int | None,
    typer.Option(min=0, help="Number of the version that holds the place now, 0 for none; refused if another does."),
]


def promote(
    model: OneVersion,
    to: To = "champion",
    reason: Reason = "",
    replacing: Replacing = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Entry:
    """Make a registered version challenger or champion."""
    from medvision.config import nearest
    from medvision.errors import ConfigInvalid
    from medvision.registry.ledger import CHALLENGER, CHAMPION
    from medvision.registry.promotion import holder
    from medvision.registry.promotion import promote as ask

    if to not in (CHAMPION, CHALLENGER):
        raise ConfigInvalid(f"--to: there is no place {to!r}. {nearest(to, [CHAMPION, CHALLENGER])}")
    client = open_registry(configure(config, None, set_))
    version = find_version(client, model)
    seen = holder(client, version.name, to) if replacing is None else replacing or None
    entry = ask(client, version.name, version.number, to=to, replacing=seen, reason=reason)
    say(describe(entry))
    say(f"{version.name} version {version.number} is {to}.")
    if to == CHAMPION:
        say(f'Serve it: medvision serve "{version.name}@champion"')
    return entry


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(promote)
