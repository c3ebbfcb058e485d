"""Five folds of a frozen backbone against one train and evaluate, chest-xray, mobilenetv2_100, nothing cached before.

Both are processes of their own in an empty project, from reading the files to the last figure: the folds share the
embeddings, so that what is left of a fold is the training of its head.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _table import Measurement, below_test_data, data_parser, needed, report

BUDGET = 1.3
_FOLDS = """
import sys
from pipelines.crossval import cross_validate
from pipelines.dataset import prepare_dataset
from pipelines.options import configure
from medvision.records import Silence

config = configure(None, "chest-xray", None, dataset_path=sys.argv[1], pretrained=sys.argv[2], model="mobilenetv2_100")
found = cross_validate(config, Silence(), prepare_dataset(config))
print(f"pooled balanced accuracy {found.pooled.overall.balanced_accuracy.value:.3f}")
"""


def main() -> int:
    """Measure and print."""
    parser = data_parser(__doc__, "chest-xray")
    parser.add_argument(
        "--weights", type=Path, default=below_test_data("..", "weights", "mobilenetv2_100_imagenet.pth")
    )
    arguments = parser.parse_args()
    data, weights = needed(arguments.dataset_path, "--dataset-path"), needed(arguments.weights, "--weights")
    options = ["--dataset", "chest-xray", "--dataset-path", str(data), "--model", "mobilenetv2_100"]
    medvision = str(Path(sys.executable).parent / "medvision")
    single = _time(
        [medvision, "train", *options, "--pretrained", str(weights), "--set", "tracking.wandb=false"],
        [medvision, "evaluate", *options, "--set", "tracking.wandb=false"],
    )
    folds = _time([sys.executable, "-c", _FOLDS, str(data), str(weights)])
    detail = f"{folds:.0f} s / {single:.0f} s"
    measured = Measurement("5 folds / train and evaluate", folds / single, BUDGET, is_ceiling=True, detail=detail)
    return report("Cross-validation of a frozen backbone", [measured], "Whole commands, cold caches.")


def _time(*commands: list[str]) -> float:
    """Run commands in an empty project and return the seconds that they took together."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config").symlink_to(root / "config")
        (Path(folder) / "MLproject").symlink_to(root / "MLproject")
        environment = {**os.environ, "PYTHONPATH": str(root)}
        start = time.perf_counter()
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
