"""Which models there are, and the recipe of each.

The catalog is ``config/models.yaml`` of the project; beside it every model of timm is known as ``timm/NAME``.
Nothing here loads torch, and timm only where a ``timm/`` name is looked up: the command line lists the catalog.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from medvision.config import Optimizer, Strategy, nearest
from medvision.errors import ConfigInvalid
from medvision.files import project_root

Head = Literal["linear", "medical"]

OWN = "own"
_TIMM_PREFIX = "timm/"


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network again, as plain values."""

    model: str
    timm_name: str
    head: Head
    n_classes: Annotated[int, Field(ge=2)]
    channels: Literal[1, 3]
    image_size: Annotated[int, Field(ge=16, le=1024)]


@dataclass(frozen=True)
class CatalogEntry:
    """A model and its default recipe; ``timm_name`` is "own" for one that medvision builds itself."""

    name: str
    timm_name: str
    image_size: Annotated[int, Field(ge=16, le=1024)]
    strategy: Strategy
    optimizer: Optimizer
    lr: Annotated[float, Field(gt=0)]
    head: Head

    def architecture(self, *, n_classes: int, channels: Literal[1, 3], image_size: int | None = None) -> Architecture:
        """Return what to build for a task; the image size is the entry's own if not given."""
        return Architecture(self.name, self.timm_name, self.head, n_classes, channels, image_size or self.image_size)


def load_catalog(path: Path | None = None) -> dict[str, CatalogEntry]:
    """Read the catalog, ``config/models.yaml`` if no other file is given.

    Raises ConfigInvalid: file unreadable, unknown key (the nearest is named), key missing, value out of range.
    """
    path = path or _catalog_path()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigInvalid(f"The catalog of models {path} can't be read: {error}.") from None
    if not isinstance(values, dict):
        raise ConfigInvalid(f"{path}: expected one entry a model, such as 'resnet18:', found {type(values).__name__}.")
    return {name: _parse_entry(name, entry, path) for name, entry in values.items()}


def find(name: str) -> CatalogEntry:
    """Return the entry of a model of the catalog, or of any timm model as ``timm/NAME``.

    Raises ConfigInvalid, with the nearest known name, if there is none.
    """
    if name.startswith(_TIMM_PREFIX):
        return _find_in_timm(name.removeprefix(_TIMM_PREFIX))
    catalog = load_catalog()
    if name not in catalog:
        raise ConfigInvalid(f"No model {name!r} in the catalog. {nearest(name, list(catalog))} Or any timm/NAME.")
    return catalog[name]


def _catalog_path() -> Path:
    # Outside a project's folder, the catalog of the checkout that this module is run from.
    roots = (project_root(), Path(__file__).parents[2])
    paths = [root / "config" / "models.yaml" for root in roots]
    return next((path for path in paths if path.is_file()), paths[0])


def _parse_entry(name: Any, values: Any, path: Path) -> CatalogEntry:
    if not isinstance(values, dict):
        raise ConfigInvalid(f"{path}: {name}: expected keys and values, found {values!r}.")
    keys = [field.name for field in fields(CatalogEntry) if field.name != "name"]
    for key in values:
        if key not in keys:
            raise ConfigInvalid(f"{path}: {name}.{key}: unknown key. {nearest(str(key), keys)}")
    try:
        return TypeAdapter(CatalogEntry).validate_python({"name": name, **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigInvalid(f"{path}: {name}.{first['loc'][0]}: {first['msg']}; found {first['input']!r}.") from None


def _find_in_timm(timm_name: str) -> CatalogEntry:
    import timm

    if not timm.is_model(timm_name):
        close = difflib.get_close_matches(timm_name, timm.list_models(), n=1)
        hint = f"Did you mean 'timm/{close[0]}'?" if close else "timm.list_models() lists them."
        raise ConfigInvalid(f"timm has no model {timm_name!r}. {hint}")
    config = timm.get_pretrained_cfg(timm_name)
    image_size = config.input_size[-1] if config else 224
    # The recipe that fine-tunes most pretrained networks, convolutional or not; --set training.lr overrides it.
    return CatalogEntry(f"{_TIMM_PREFIX}{timm_name}", timm_name, image_size, "full", "adamw", 1e-4, "linear")
