"""Normalization statistics: throughput against bare decoding, memory in the number of images, and exactness."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from _table import Measurement, data_parser, every_nth, needed, report

from medvision.data.decode import decode_image
from medvision.data.manifest import Manifest
from medvision.data.normalization import compute_normalization
from medvision.data.parallel import map_files
from medvision.data.split import Split

ROUNDS = 3
N_EXACT = 40


def main() -> int:
    """Measure and print."""
    parser = data_parser(__doc__, "brain-mri")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--repeat", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    root = needed(arguments.dataset_path, "--dataset-path")
    paths = every_nth(sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES), arguments.images)
    if arguments.repeat:
        print(_peak_bytes(paths * arguments.repeat))
        return 0
    bare_s, ours_s = _race(paths)
    peaks = [_measure_peak(root, arguments.images, repeat) for repeat in (1, 4)]
    return report(
        f"Normalization of {len(paths)} images",
        [
            Measurement(
                "throughput / bare decode, all cores",
                bare_s / ours_s,
                0.85,
                detail=f"{len(paths) / ours_s:.0f} / {len(paths) / bare_s:.0f} images/s, best of {ROUNDS}",
            ),
            Measurement(
                "peak memory of 4 times as many images",
                peaks[1] / peaks[0],
                1.1,
                True,
                detail=f"{peaks[1] >> 20} / {peaks[0] >> 20} MiB, all processes, resident",
            ),
            Measurement(
                "largest difference to float64 numpy",
                _difference(every_nth(paths, N_EXACT)),
                1e-6,
                True,
                "",
                f"mean and std of {N_EXACT} images",
            ),
        ],
        "Bare decode: the same pool of processes decodes and keeps nothing.",
    )


_SUFFIXES = {".jpg", ".jpeg", ".png"}


def _race(paths: list[Path]) -> tuple[float, float]:
    bare_s = ours_s = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in map_files(_decode, paths, workers=None, description="Decoding"):
            pass
        bare_s = min(bare_s, time.perf_counter() - start)
        start = time.perf_counter()
        _normalize(paths)
        ours_s = min(ours_s, time.perf_counter() - start)
    return bare_s, ours_s


def _decode(path: Path) -> int:
    return decode_image(path).shape[0]


def _normalize(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    rows = pd.DataFrame({"path": [str(path) for path in paths], "frame": 0})
    manifest = Manifest(Path("/"), ("a", "b"), rows, (), 0, (), "", "benchmark")
    split = Split(np.full(len(paths), "train", dtype=object), "benchmark", "benchmark")
    statistics = compute_normalization(manifest, split, channels=3)
    return np.array(statistics.mean), np.array(statistics.std)


def _difference(paths: list[Path]) -> float:
    pixels = [decode_image(path) for path in paths]
    pixels = [np.repeat(each[:, :, None], 3, axis=2) if each.ndim == 2 else each for each in pixels]
    flat = np.concatenate([each.reshape(-1, 3) for each in pixels]).astype(np.float64) / 255
    mean, std = _normalize(paths)
    return float(max(abs(mean - flat.mean(axis=0)).max(), abs(std - flat.std(axis=0)).max()))


def _measure_peak(root: Path, n_images: int, repeat: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--dataset-path", str(root), "--images", str(n_images), "--repeat", str(repeat)]
        output = subprocess.check_output([sys.executable, str(Path(__file__).resolve()), *options], cwd=folder)
    return int(output.split()[-1])


def _peak_bytes(paths: list[Path]) -> int:
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        me = psutil.Process()
        while not ended.wait(0.05):
            peak = max(peak, sum(_resident(process) for process in [me, *me.children(recursive=True)]))

    thread = threading.Thread(target=watch)
    thread.start()
    _normalize(paths)
    ended.set()
    thread.join()
    return peak


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    sys.exit(main())
