"""Steps inside a step: nested runs, with how long each took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.console import say

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.tracking.recorder import Recorder


@contextlib.contextmanager
def nested_step(name: str, config: Config, parent: Recorder) -> Iterator[Recorder]:
    """Open a nested run for a step, and say and record how long it took."""
    from medvision.tracking.recorder import open_run

    say(f"\n== {name} {config.training.model}")
    started = time.monotonic()
    with open_run(config, step=name, name=f"{name} {config.training.model}", parent=parent) as recorder:
        yield recorder
    seconds = time.monotonic() - started
    parent.metrics({f"seconds/{name}": seconds}, step=0)
    say(f"   ({seconds:.1f} s)")
