"""Make a synthetic sample dataset: brain-like MR slices of three tumour classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import say


def phantom(
    folder: Annotated[Path, typer.Option(help="Where the images are made.")] = Path("demo/brain-phantom"),
    patients: Annotated[int, typer.Option(min=3, help="Patients a class.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes other patients.")] = 42,
) -> None:
    """Make SYNTHETIC brain-like slices of three tumour classes to try the platform on."""
    from medvision.data.phantom import make_phantom

    make_phantom(folder, patients_per_class=patients, seed=seed)
    say(f"Synthetic brain-like slices of 3 classes, {patients} patients each, in {folder}")


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(phantom)
