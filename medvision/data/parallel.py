"""Work over many files on all cores, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from medvision.errors import DataInvalid

Item = TypeVar("Item")

# Below this many items, starting processes costs more than it saves.
_FEW = 64


def map_files(
    function: Callable[[Any], Item], items: Sequence[Any], *, workers: int | None, description: str
) -> Iterator[Item]:
    """Yield ``function(item)`` in order, computed by ``workers`` processes (all cores if None)."""
    workers = workers if workers is not None else os.cpu_count() or 1
    if workers <= 1 or len(items) < _FEW:
        yield from with_progress(map(function, items), len(items), description)
        return
    # Not fork: the parent has threads (delivery, BLAS), and a forked lock may never be released.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medvision.data.decode"])
    chunk = max(1, min(64, len(items) // (workers * 4)))
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from with_progress(pool.map(function, items, chunksize=chunk), len(items), description)
        except BrokenProcessPool:
            raise DataInvalid(
                f"A process died while {description.lower()}: a decoder crashed, or memory ran out. "
                "Run again with --set performance.workers=1 to see at which file."
            ) from None


def with_progress(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield the items, with a progress bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, description, total, console=console, disable=not sys.stderr.isatty(), transient=True)
