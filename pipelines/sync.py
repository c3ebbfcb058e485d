"""Deliver what was recorded while the tracking server was away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

if TYPE_CHECKING:
    from medvision.tracking.sync import SyncReport


Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait for a server that does not answer.")]


def sync(timeout_s: Timeout = 60.0, config: ConfigFile = None, set_: Set = None) -> SyncReport:
    """Deliver what was recorded while the tracking server was away."""
    from medvision.errors import TrackingUnavailable
    from medvision.tracking import sync as outbox

    report = outbox.sync(configure(config, None, set_), timeout_s)
    say(f"{report.delivered} events of {len(report.runs)} runs delivered, {report.pending} pending")
    if report.pending:
        raise TrackingUnavailable(f"{report.pending} events are still pending: the tracking server did not take them.")
    return report


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(sync)
