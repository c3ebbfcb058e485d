"""The bootstrap of all figures: seconds on one core, and memory in the number of replicates."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc

# BLAS reads it when numpy is imported.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
from _table import Measurement, report

from medvision.evaluation.bootstrap import replicate
from medvision.evaluation.predictions import Predictions
from medvision.records import Plan

N_IMAGES, N_PATIENTS, N_CLASSES = 20_000, 10_000, 4
REPLICATES = 10_000


def main() -> int:
    """Measure and print."""
    predictions = _predictions()
    start = time.perf_counter()
    names, _ = replicate(predictions, Plan(REPLICATES))
    seconds = time.perf_counter() - start
    quarter, whole = (_peak_bytes(predictions, replicates) for replicates in (REPLICATES // 4, REPLICATES))
    return report(
        f"{REPLICATES:,} bootstrap replicates of {len(names)} figures",
        [
            Measurement(
                "one core",
                seconds,
                30,
                True,
                " s",
                f"{N_IMAGES:,} images of {N_PATIENTS:,} patients, {N_CLASSES} classes",
            ),
            Measurement(
                "peak memory of 4 times as many replicates",
                whole / quarter,
                1.1,
                True,
                detail=f"{whole / 2**20:.1f} / {quarter / 2**20:.1f} MiB beside the results",
            ),
        ],
    )


def _peak_bytes(predictions: Predictions, replicates: int) -> int:
    tracemalloc.start()
    _, values = replicate(predictions, Plan(replicates))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - values.nbytes


def _predictions() -> Predictions:
    rng = np.random.default_rng(0)
    patients = np.concatenate([np.arange(N_PATIENTS), rng.integers(0, N_PATIENTS, N_IMAGES - N_PATIENTS)])
    y_true = rng.integers(0, N_CLASSES, N_PATIENTS)[patients]
    logits = rng.normal(size=(N_IMAGES, N_CLASSES)) + 2 * np.eye(N_CLASSES)[y_true]
    y_score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    keys = tuple(f"patient{patient}" for patient in patients)
    images = tuple(f"image{i}" for i in range(N_IMAGES))
    return Predictions(images, keys, y_true, y_score.astype(np.float32), tuple("abcd"))


if __name__ == "__main__":
    sys.exit(main())
