"""How long `medvision --help` takes, and that it loads neither torch nor MLflow."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from _table import Measurement, report

ROUNDS = 10
_LOADED = "import sys, medvision.cli; print(len({'torch', 'mlflow'} & sys.modules.keys()))"


def main() -> int:
    """Measure and print."""
    command = [str(Path(sys.executable).with_name("medvision")), "--help"]
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    loaded = int(subprocess.check_output([sys.executable, "-c", _LOADED]))
    return report(
        "medvision --help",
        [
            Measurement(
                f"wall time, best of {ROUNDS}", min(seconds), 0.5, True, " s", f"median {sorted(seconds)[5]:.2f} s"
            ),
            Measurement("of torch and MLflow, loaded", loaded, 0, True, ""),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
