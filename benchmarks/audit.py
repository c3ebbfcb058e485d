"""The search for copies: time and memory for 50,000 images, and what it finds of copies that were planted."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _table import Measurement, data_parser, report

from medvision.auditing.deep import load_or_examine
from medvision.auditing.near_duplicates import find_near_duplicates
from medvision.config import Config
from medvision.data.decode import decode_image, fit_to_square
from medvision.data.manifest import load_or_build_manifest
from medvision.data.phantom import make_phantom

N_COPIES = 500
PATIENTS = r"(person\d+)_|(NORMAL2-IM-\d+)|(IM-\d+)"


def main() -> int:
    """Measure and print."""
    parser = data_parser(__doc__, "chest-xray")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--whole", action="store_true", help="also audit the whole dataset, decoding and all")
    arguments = parser.parse_args()
    measurements = _measure_search(arguments)
    if arguments.whole and arguments.dataset_path is not None:
        measurements.append(_measure_whole(arguments.dataset_path))
    return report(
        f"Audit of {arguments.images:,} synthetic thumbnails",
        measurements,
        "Included: hashes of all eight orientations, spectra under ten views, search, alignment and verification.\n"
        "Not included: decoding the files to thumbnails of 64 pixels, which `audit of the whole dataset` has.",
    )


def _measure_search(arguments: argparse.Namespace) -> list[Measurement]:
    thumbnails, true = _make(arguments.images)
    start, worked = time.perf_counter(), time.process_time()
    pairs = find_near_duplicates(thumbnails, np.ones(len(thumbnails), dtype=bool))
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = set(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True))
    return [
        Measurement("search for copies", seconds, 600, True, " s", f"{worked:.0f} s of processor time"),
        Measurement("peak memory", peak / 1e9, 2, True, " GB", "resident, with the thumbnails"),
        Measurement("planted copies that are found", len(found & true) / len(true), 0.9, detail=f"of {len(true)}"),
        Measurement("pairs that were not planted", len(found - true), 5, True, "", f"of {len(found)} pairs"),
    ]


def _make(n: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Return heads that are alike in the large, the last ones being altered copies of the first."""
    from scipy.ndimage import gaussian_filter

    with tempfile.TemporaryDirectory() as folder:
        make_phantom(Path(folder) / "p", patients_per_class=20, slices_per_patient=1)
        heads = [fit_to_square(decode_image(p), 64, 1)[:, :, 0] for p in sorted((Path(folder) / "p").glob("*/*.png"))]
    random = np.random.default_rng(0)
    thumbnails = np.empty((n, 64, 64), dtype=np.uint8)
    for row in range(n):
        coarse, fine = (gaussian_filter(random.normal(size=(64, 64)).astype(np.float32), s) * s for s in (6, 1.5))
        thumbnails[row] = (heads[row % len(heads)] * 0.8 + 20 + 60 * coarse + 40 * fine).clip(0, 255)
    copies = range(n - N_COPIES, n)
    for k, row in enumerate(copies):
        thumbnails[row] = _alter(thumbnails[k], k, random)
    return thumbnails, {(k, row) for k, row in enumerate(copies)}


def _alter(image: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    if k % 4 == 0:
        return image[:, ::-1]
    if k % 4 == 1:
        return (image * 0.8 + 30).astype(np.uint8)
    if k % 4 == 2:
        return (image + random.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)
    return fit_to_square(np.ascontiguousarray(image[3:-3, 2:-4]), 64, 1)[:, :, 0]


def _measure_whole(path: Path) -> Measurement:
    with tempfile.TemporaryDirectory() as state:
        config = Config.model_validate(
            {
                "dataset": {"path": path, "patient_pattern": PATIENTS},
                "training": {"pretrained": False},
                "paths": {"state": Path(state)},
            }
        )
        manifest = load_or_build_manifest(config)
        start = time.perf_counter()
        deep = load_or_examine(manifest, config)
        seconds = time.perf_counter() - start
    detail = f"{len(manifest.rows):,} images, by {deep.embeddings.split(';')[0]}; beside the manifest"
    return Measurement(f"audit of the whole dataset {path.name}", seconds, unit=" s", detail=detail)


if __name__ == "__main__":
    sys.exit(main())
