"""A dataset's own settings, config/datasets/NAME.yaml: what was given, a first recipe, and the reason of each.

The first line of a file that adapt wrote holds a fingerprint of the rest: a file that a person has changed is theirs,
and is never written again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.data.recipe import Profile, Proposal
    from pipelines.dataset import SplitDataset

# What is of the dataset; other settings are of the machine, or of one run.
_SECTIONS = ("dataset", "transform", "training", "evaluation")
# Files that are asked for their modality.
_SAMPLE = 20


@dataclass(frozen=True)
class DatasetFile:
    """The settings of a dataset as adapt would write them, and its file as it is.

    ``recipe``: dotted settings with their values and reasons. ``before``: the text of the file, None if there is none.
    ``differing``: what the file says instead, by setting; ``dropped``: settings that it would lose.
    """

    path: Path
    recipe: tuple[Proposal, ...]
    before: str | None
    differing: dict[str, Any]
    dropped: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the settings as YAML, each with its reason."""
        return render(self.recipe, self.path.stem)

    @property
    def is_kept(self) -> bool:
        """Tell whether a person has changed the file, which then stays as it is."""
        return self.before is not None and not is_untouched(self.before)

    @property
    def has_path(self) -> bool:
        """Tell whether the file says where the images are."""
        return get_setting(_read_values(self.before), "dataset.path") is not None

    @property
    def state(self) -> str:
        """Return what becomes of the file."""
        if self.before is None:
            return "written"
        if self.is_kept:
            return "kept as it was"
        return "unchanged" if self.before == self.text else "written anew"


def dataset_file(name: str) -> Path:
    """Return where the settings of a dataset are."""
    from medvision.files import project_root

    return project_root() / "config" / "datasets" / f"{name}.yaml"


def read_dataset_file(name: str, home: Path) -> str | None:
    """Return the text of a dataset's settings, None if there are none; ConfigInvalid if they are of images elsewhere.

    ``home``: where the images are.
    """
    from medvision.config import read_yaml
    from medvision.errors import ConfigInvalid

    path = dataset_file(name)
    if not path.is_file():
        return None
    section = read_yaml(path).get("dataset") or {}
    if not isinstance(section, dict):
        raise ConfigInvalid(f"{path}: dataset: expected settings such as 'path: FOLDER' below it, found {section!r}.")
    place = section.get("path")
    if place is not None and not isinstance(place, str):
        raise ConfigInvalid(f"{path}: dataset.path: expected a folder, found {place!r}.")
    if place is not None and Path(place).resolve() != home:
        raise ConfigInvalid(f"{path} is the file of images in {place}, and these are in {home}. Give --name NAME.")
    return path.read_text(encoding="utf-8")


def is_untouched(text: str) -> bool:
    """Tell whether the text of a file is as adapt wrote it."""
    name, body = text.partition("Settings of ")[2].partition(",")[0], text.partition("\n\n")[2]
    return text == _seal(name, body)


def keep_lasting(given: dict[str, Any]) -> dict[str, Any]:
    """Return those of the given settings that are the dataset's own."""
    return {key: value for key, value in given.items() if key.partition(".")[0] in _SECTIONS}


def describe_dataset(settings: Config, dataset: SplitDataset, own: dict[str, Any], before: str | None) -> DatasetFile:
    """Return the settings of a dataset: ``own`` in any case, and a proposal for what they leave open.

    ``settings`` are those in force, ``before`` is the text of its file.
    """
    from medvision.config import flatten
    from medvision.data.recipe import Proposal, propose
    from medvision.models.catalog import load_catalog

    proposed = propose(_profile(settings, dataset), tuple(load_catalog()))
    fixed = (Proposal(key, value, "") for key, value in own.items())
    recipe = (*fixed, *(each for each in proposed if each.setting not in own))
    new, old = {each.setting: each.value for each in recipe}, flatten(_read_values(before))
    path = dataset_file(settings.dataset_name)
    if before is None:
        return DatasetFile(path, recipe, before, {}, ())
    if is_untouched(before):
        differing = {key: old.get(key) for key, value in new.items() if old.get(key) != value}
        return DatasetFile(path, recipe, before, differing, tuple(key for key in old if key not in new))
    # What the file leaves open is as the settings in force have it. It need not say where the images are.
    force = settings.model_dump(mode="json")
    compared = {key: get_setting(force, key) for key in new if key not in ("dataset.name", "dataset.path")}
    differing = {key: value for key, value in compared.items() if value != new[key]}
    return DatasetFile(path, recipe, before, differing, ())


def render(recipe: Iterable[Proposal], name: str) -> str:
    """Return settings as YAML, each with its reason."""
    sections: dict[str, list[str]] = {}
    for each in recipe:
        section, *above, leaf = each.setting.split(".")
        body = sections.setdefault(section, [])
        for depth, part in enumerate(above, start=1):
            if f"{'  ' * depth}{part}:" not in body:
                body.append(f"{'  ' * depth}{part}:")
        reason = f"  # {each.reason}" if each.reason else ""
        body.append(f"{'  ' * (len(above) + 1)}{leaf}: {_as_yaml(each.value)}{reason}")
    return _seal(name, "\n".join("\n".join([f"{section}:", *body, ""]) for section, body in sections.items()))


def _seal(name: str, body: str) -> str:
    from medvision.files import fingerprint

    return (
        f"# Settings of {name}, as medvision adapt wrote them ({fingerprint(body)[:12]}).\n"
        f"# Change what you know better: then the file is yours, and adapt leaves it as it is.\n\n{body}"
    )


def _profile(settings: Config, dataset: SplitDataset) -> Profile:
    from medvision.auditing.traits import load_or_measure_traits
    from medvision.data.dicom import read_modality
    from medvision.data.recipe import Profile
    from medvision.data.split import count_classes
    from medvision.models.devices import choose_device

    train, manifest = dataset.split.indices("train"), dataset.manifest
    rows = manifest.rows
    traits = load_or_measure_traits(manifest, settings.dataset_dir, workers=settings.performance.workers)
    return Profile(
        counts=count_classes(train, manifest),
        median_side=int(rows[["width", "height"]].min(axis=1).median()),
        is_gray=manifest.is_gray,
        subgroups=manifest.subgroups,
        mean_image=traits.thumbnails[train].mean(axis=0),
        modality=read_modality([manifest.root / path for path in rows.path.unique()[:_SAMPLE]]),
        has_gpu=choose_device(settings.performance).type == "cuda",
        pretrained=settings.training.pretrained,
    )


def _as_yaml(value: Any) -> str:
    import yaml

    # Of a value that stands alone YAML marks the end.
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _read_values(text: str | None) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(text or "") or {}


def get_setting(values: dict[str, Any], dotted: str) -> Any:
    """Return a setting of nested ones, None if it is not there."""
    for part in dotted.split("."):
        values = (values or {}).get(part)  # type: ignore[assignment]
    return values
