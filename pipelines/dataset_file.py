"""A dataset's own settings, config/datasets/NAME.yaml: what was given, a first recipe, and the reason of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.data.recipe import Proposal
    from pipelines.dataset import SplitDataset

# What is of the dataset; other settings are of the machine, or of one run.
_SECTIONS = ("dataset", "transform", "training", "evaluation")


@dataclass(frozen=True)
class DatasetFile:
    """The settings of a dataset as they would be written, and those that are.

    ``recipe`` holds dotted settings with their values and reasons; ``kept`` the values of a file that was there before
    and has others. ``lacks_path``: that file does not say where the images are.
    """

    path: Path
    exists: bool
    recipe: tuple[Proposal, ...]
    kept: dict[str, Any]
    lacks_path: bool

    @property
    def state(self) -> str:
        """Return what becomes of the file."""
        return "written" if not self.exists else "kept as it was" if self.kept else "unchanged"


def dataset_file(name: str) -> Path:
    """Return where the settings of a dataset are."""
    from medvision.files import project_root

    return project_root() / "config" / "datasets" / f"{name}.yaml"


def describe_dataset(
    settings: Config, dataset: SplitDataset, given: dict[str, Any], saved: Config | None
) -> DatasetFile:
    """Return the settings of a dataset: its place, what was given, and a proposal for what was not.

    ``saved``: the settings with the file of that name, None if there is none. Raises ConfigInvalid if that file is one
    of images elsewhere.
    """
    from medvision.data.recipe import Proposal, propose
    from medvision.errors import ConfigInvalid
    from medvision.models.catalog import load_catalog

    own = {"dataset.name": settings.dataset_name, "dataset.path": str(settings.dataset_path)}
    lasting = {key: value for key, value in given.items() if key.partition(".")[0] in _SECTIONS}
    fixed = [Proposal(key, _plain(value), "") for key, value in {**own, **lasting}.items()]
    proposed = propose(_profile(settings, dataset), tuple(load_catalog()))
    recipe = (*fixed, *(each for each in proposed if each.setting not in given))
    path = dataset_file(settings.dataset_name)
    if saved is None:
        return DatasetFile(path, exists=False, recipe=recipe, kept={}, lacks_path=False)
    place = saved.dataset.path
    if place is not None and place.resolve() != settings.dataset_path:
        raise ConfigInvalid(
            f"{path} is the file of images in {place}, and these are in {settings.dataset_path}. Give --name NAME."
        )
    said = saved.model_dump(mode="json")
    differing = {each.setting: _get(said, each.setting) for each in recipe if _get(said, each.setting) != each.value}
    kept = {setting: value for setting, value in differing.items() if not setting.startswith("dataset.path")}
    return DatasetFile(path, exists=True, recipe=recipe, kept=kept, lacks_path=place is None)


def render(recipe: Iterable[Proposal], name: str) -> str:
    """Return settings as YAML, each with its reason."""
    lines = [f"# Settings of {name}, by medvision adapt. Change what you know better: the file is yours."]
    sections: dict[str, list[str]] = {}
    for each in recipe:
        section, _, key = each.setting.partition(".")
        *above, leaf = key.split(".")
        body = sections.setdefault(section, [])
        for depth, part in enumerate(above):
            if f"{'  ' * (depth + 1)}{part}:" not in body:
                body.append(f"{'  ' * (depth + 1)}{part}:")
        reason = f"  # {each.reason}" if each.reason else ""
        body.append(f"{'  ' * (len(above) + 1)}{leaf}: {_as_yaml(each.value)}{reason}")
    for section, body in sections.items():
        lines += ["", f"{section}:", *body]
    return "\n".join(lines) + "\n"


def _profile(settings: Config, dataset: SplitDataset) -> Any:
    from medvision.auditing.traits import load_or_measure_traits
    from medvision.data.recipe import Profile
    from medvision.data.split import count_classes
    from medvision.models.devices import choose_device

    train, manifest = dataset.split.indices("train"), dataset.manifest
    rows = manifest.rows.iloc[train]
    traits = load_or_measure_traits(manifest, settings.dataset_dir, workers=settings.performance.workers)
    return Profile(
        counts=count_classes(train, manifest),
        median_side=int(rows[["width", "height"]].min(axis=1).median()),
        is_gray=manifest.is_gray,
        subgroups=manifest.subgroups,
        mean_image=traits.thumbnails[train].mean(axis=0),
        has_gpu=choose_device(settings.performance).type == "cuda",
        pretrained=settings.training.pretrained,
    )


def _as_yaml(value: Any) -> str:
    import yaml

    # Of a value that stands alone YAML marks the end.
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _get(values: dict[str, Any], dotted: str) -> Any:
    for part in dotted.split("."):
        values = values[part]
    return values
