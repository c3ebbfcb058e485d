"""Bring a model package from elsewhere into the project, as a model like any other."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.models import PACKAGE, check_new_name, outputs_dir, with_model

if TYPE_CHECKING:
    from medvision.config import Config


def fetch_package(config: Config, source: str) -> Config:
    """Copy the package of a folder, a registered version or a run, and return settings whose model it is.

    A checkpoint is given a name only: it is packed where the dataset is at hand.

    It is named after its source, so that nothing that was trained here is overwritten. Raises ConfigInvalid for a
    source that holds no package; CheckpointCorrupt for a damaged one.
    """
    from medvision.errors import ConfigInvalid
    from medvision.models.package import copy_package, package_digest
    from medvision.registry.packages import download_package
    from medvision.tracking.mlflow_sink import tracking_uri

    local = _local(Path(source))
    named = with_model(config, _name(str(local or source)))
    if is_checkpoint(source):
        check_new_name(named)
        return named
    target = outputs_dir(named) / PACKAGE
    if local and local.resolve() == target.resolve():
        return named
    check_new_name(named)
    with tempfile.TemporaryDirectory() as folder:
        place = local or download_package(tracking_uri(config), source, Path(folder))
        if target.is_dir() and package_digest(target) != package_digest(place):
            raise ConfigInvalid(
                f"There is another model in {target}. Move it away, or copy {source} under another name."
            )
        copy_package(place, target)
    say(f"{source} is model {named.training.model} from here on: --model {named.training.model}")
    return named


def is_checkpoint(source: str) -> bool:
    """Tell whether a source is a file of weights, as training keeps them."""
    return source.endswith(".pth")


def is_source(model: str) -> bool:
    """Tell whether a model is named by where its package lies in MLflow: models:/NAME/1, or the id of a run."""
    from medvision.registry.names import is_run_id

    return model.startswith("models:/") or is_run_id(model)


def _local(path: Path) -> Path | None:
    """Return the package that a folder is, or holds."""
    return next((place.resolve() for place in (path / PACKAGE, path) if (place / "package.json").is_file()), None)


def _name(source: str) -> str:
    """Name a package after its version, its run or its folder: chest-xray-resnet18-1, resnet18_outputs.

    A checkpoint is named after its folder and itself: resnet18_outputs-epoch_010.
    """
    plain = source.removeprefix("models:/").removesuffix(f"/{PACKAGE}").rstrip("/")
    if is_checkpoint(source):
        path = Path(source).resolve()
        plain = f"{path.parent.name}-{path.stem}"
    tail = plain if source.startswith("models:/") else plain.rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", tail).strip("-.")[:64]
