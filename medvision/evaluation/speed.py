"""How fast a model package answers, and what it needs, on the hardware at hand. Decoding is not counted."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import psutil
import torch

from medvision.evaluation.scoring import score_package
from medvision.records import Latency, PackageInfo, Preprocessing, Speed

_WARM_UPS = 5
_MIN_RUNS = 50
_MAX_BATCH = 64
_SAMPLE_S = 0.002


def measure_latency(info: PackageInfo, networks: Sequence[torch.nn.Module], *, seconds: float = 3.0) -> Latency:
    """Time single images, one after the other, from uint8 squares to probabilities, where ``place`` put the networks.

    At least 50 answers, and as many as ``seconds`` allow, after five that warm up: by all threads, and by one, of which
    the better is returned. On a core that another job uses, threads wait for the one that is late: 1.5 s in place of
    13 ms were seen, and 31 ms with one thread.
    """
    answer = _answering(info, networks, batch=1)
    found = []
    for threads in sorted({torch.get_num_threads(), 1}):
        with _threads(threads):
            times_ms = 1000 * _times(answer, seconds)
        p50, p95, p99 = np.percentile(times_ms, (50, 95, 99)).tolist()
        found.append(Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, n=len(times_ms), threads=threads))
    return min(found, key=lambda latency: latency.p95_ms)


def measure_speed(info: PackageInfo, networks: Sequence[torch.nn.Module], *, size_bytes: int, hardware: str) -> Speed:
    """Measure latency at batch 1, throughput at the best batch among 1, 2, 4 ... 64, and peak memory at 64.

    ``size_bytes``: of the package's files; ``hardware``: what the networks are on. Memory is that of the weights, and
    what the first answer adds to the memory of this process: on a GPU what torch allocates, else resident memory,
    sampled every 2 ms, which leaves out what earlier work left to be used again and could not be given back.
    """
    device = next(networks[0].parameters()).device
    answer = _answering(info, networks, batch=_MAX_BATCH)
    # Before anything else, which would leave memory for it to use.
    with _peak_memory(device) as peak:
        answer()
    latency = measure_latency(info, networks)
    batch, throughput = _best_batch(info, networks)
    return Speed(
        latency=latency,
        batch_size=batch,
        throughput_images_s=throughput,
        peak_memory_bytes=peak() + sum(map(_weight_bytes, networks)),
        size_bytes=size_bytes,
        n_parameters=sum(parameter.numel() for network in networks for parameter in network.parameters()),
        hardware=hardware,
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _weight_bytes(network: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _best_batch(info: PackageInfo, networks: Sequence[torch.nn.Module]) -> tuple[int, float]:
    """Double the batch while throughput grows; return the best batch and its throughput in images a second."""
    best, throughput, batch = 1, 0.0, 1
    while batch <= _MAX_BATCH:
        found = batch / float(np.median(_times(_answering(info, networks, batch=batch), seconds=0.5, at_least=3)))
        # On a noisy machine one slower batch is no reason to stop.
        if found < 0.8 * throughput:
            break
        if found > throughput:
            best, throughput = batch, found
        batch *= 2
    return best, throughput


def _answering(info: PackageInfo, networks: Sequence[torch.nn.Module], *, batch: int) -> Callable[[], object]:
    generator = np.random.default_rng(0)
    images = {
        form: generator.integers(0, 256, (batch, form.image_size, form.image_size, form.channels), dtype=np.uint8)
        for form in (member.preprocessing for member in info.members)
    }

    def inputs(form: Preprocessing) -> np.ndarray:
        return images[form]

    return lambda: score_package(info, networks, inputs, batch_size=batch)


def _times(answer: Callable[[], object], seconds: float, at_least: int = _MIN_RUNS) -> np.ndarray:
    for _ in range(min(_WARM_UPS, at_least)):
        answer()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < at_least or time.perf_counter() < end:
        start = time.perf_counter()
        answer()
        times.append(time.perf_counter() - start)
    return np.array(times)


def _give_back_memory() -> None:
    """Return what earlier work has freed to the system, so that its use counts as a rise again; only glibc can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yield a function that returns, once the block is left, the highest memory in it beyond that before it, bytes."""
    if device.type == "cuda":
        # Of all that this process holds there, not of these networks alone.
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    _give_back_memory()
    process, done = psutil.Process(), threading.Event()
    samples = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            samples.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(samples) - samples[0]
    finally:
        done.set()
        watcher.join()
