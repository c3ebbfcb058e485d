"""Deliver what was recorded while the tracking server was away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

if TYPE_CHECKING:
    from medvision.tracking.sync import SyncReport


def sync(config: ConfigFile = None, set_: Set = None) -> SyncReport:
    """Deliver what was recorded while the tracking server was away."""
    from medvision.errors import TrackingUnavailable
    from medvision.tracking import sync as outbox

    report = outbox.sync(configure(config, None, set_))
    say(f"{report.delivered} events of {report.runs} runs delivered, {report.pending} pending")
    if report.pending:
        raise TrackingUnavailable(f"{report.pending} events are still pending: the tracking server did not take them.")
    return report


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(sync)
