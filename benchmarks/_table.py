"""What the benchmarks share: a table of ratios beside their budgets, and where they were measured."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_LIBRARIES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")


@dataclass(frozen=True)
class Measurement:
    """One figure; without a budget it is only stated."""

    what: str
    figure: float
    budget: float | None = None
    is_ceiling: bool = False
    unit: str = "x"
    detail: str = ""

    @property
    def is_met(self) -> bool:
        """Tell whether the figure is within its budget; NaN never is."""
        if self.budget is None:
            return True
        return self.figure <= self.budget if self.is_ceiling else self.figure >= self.budget


def report(title: str, measurements: list[Measurement], notes: str = "") -> int:
    """Print the table; return the exit code: 1 if a budget was missed."""
    table = Table("what", "measured", "budget", "", "detail", title=title, title_justify="left")
    for each in measurements:
        sign = "<=" if each.is_ceiling else ">="
        budget = "" if each.budget is None else f"{sign} {each.budget:g}{each.unit}"
        verdict = "" if each.budget is None else "ok" if each.is_met else "MISSED"
        table.add_row(each.what, f"{each.figure:.3g}{each.unit}", budget, verdict, each.detail)
    console = Console(width=140)
    console.print(table)
    console.print(f"{notes}\n{machine()}".strip(), highlight=False)
    return 0 if all(each.is_met for each in measurements) else 1


def machine() -> str:
    """Return one line on the machine, its load, and the versions."""
    load, _, _ = os.getloadavg()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, load {load:.1f} at the end, "
        f"Python {platform.python_version()}, {versions}"
    )


def data_parser(description: str | None, dataset: str) -> argparse.ArgumentParser:
    """Return a parser with the dataset's folder, by default below MEDVISION_TEST_DATA."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--dataset-path", type=Path, default=below_test_data(dataset), help=f"folder of {dataset}")
    return parser


def below_test_data(*parts: str) -> Path | None:
    """Return a path below MEDVISION_TEST_DATA, None where that is not set."""
    root = os.environ.get("MEDVISION_TEST_DATA")
    return Path(root).resolve().joinpath(*parts) if root else None


def needed(path: Path | None, option: str) -> Path:
    """Return a path that exists, or end with exit code 2."""
    if path is None or not path.exists():
        print(f"{option} expects a path that exists (or set MEDVISION_TEST_DATA); found {path}.", file=sys.stderr)
        sys.exit(2)
    return path.resolve()


def link_some(folder: Path, images: list[Path], root: Path) -> Path:
    """Lay links to some images of ``root`` into ``folder``, under the same names."""
    for image in images:
        link = folder / image.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image)
    return folder


def every_nth(images: list[Path], n: int) -> list[Path]:
    """Return ``n`` of the images, evenly over the list."""
    return [images[i * len(images) // n] for i in range(n)] if n < len(images) else images
