"""Bring a model package from elsewhere into the project, as a model like any other."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.models import PACKAGE, outputs_dir

if TYPE_CHECKING:
    from medvision.config import Config


def fetch_package(config: Config, source: str) -> Config:
    """Copy the package of a folder, a registered version or a run, and return settings whose model it is.

    It is named after its source, so that nothing that was trained here is overwritten. Raises ConfigInvalid for a
    source that holds no package; CheckpointCorrupt for a damaged one.
    """
    from medvision.models.package import copy_package
    from medvision.registry.packages import download_package
    from medvision.tracking.mlflow_sink import tracking_uri

    training = config.training.model_copy(update={"model": _name(source)})
    named = config.model_copy(update={"training": training})
    with tempfile.TemporaryDirectory() as folder:
        place = _local(Path(source)) or download_package(tracking_uri(config), source, Path(folder))
        target = outputs_dir(named) / PACKAGE
        if place.resolve() != target.resolve():
            copy_package(place, target)
    say(f"{source} is model {training.model} from here on: --model {training.model}")
    return named


def _local(path: Path) -> Path | None:
    """Return the package that a folder is, or holds."""
    return next((place for place in (path / PACKAGE, path) if (place / "package.json").is_file()), None)


def _name(source: str) -> str:
    name = source.removeprefix("models:/").removesuffix(f"/{PACKAGE}").rstrip("/")
    tail = "-".join(name.split("/")[-2:]) if source.startswith("models:/") else name.rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", tail)[:64]
