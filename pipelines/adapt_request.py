"""What adapt is asked for: the settings in force, those that its dataset keeps, and the file that is there already."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.console import say
from pipelines.dataset_file import get_setting, is_untouched, keep_lasting, read_dataset_file
from pipelines.options import SETTINGS, split_assignments

if TYPE_CHECKING:
    from medvision.config import Config


@dataclass(frozen=True)
class Request:
    """What is asked for.

    ``settings`` are those in force, ``options`` those of this command alone, to be laid over any recipe. ``own``: what
    the dataset's own file is to say in any case. ``before``: the text of that file, None if there is none.
    """

    settings: Config
    options: dict[str, Any]
    own: dict[str, Any]
    config: Path | None
    before: str | None


@contextlib.contextmanager
def own_state(dry_run: bool) -> Iterator[dict[str, Any]]:
    """Yield the setting of where records go, if not to the project's own: those of a dry run are deleted at its end."""
    if not dry_run:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="medvision-dry-run-") as folder:
        yield {"paths.state": folder}


def parse_settings(given: dict[str, Any], assignments: list[str] | None) -> dict[str, Any]:
    """Return dotted settings. Files get their whole path: later steps may run elsewhere."""
    from medvision.config import parse_overrides

    said = {SETTINGS[option]: value for option, value in given.items() if value is not None}
    said |= parse_overrides(split_assignments(assignments))
    for key in {"dataset.labels", "training.pretrained"} & said.keys():
        if Path(str(said[key])).exists():
            said[key] = str(Path(str(said[key])).resolve())
    return said


def read_request(
    path: Path, name: str | None, config: Path | None, said: dict[str, Any], state: dict[str, Any]
) -> Request:
    """Return what is asked for; a dataset's file that a person has changed wins over what is given."""
    from medvision.config import load_config

    if name or path.is_file():
        said = {"dataset.name": name or path.stem, **said}
    images, home = _unpack(path, config, said, state)
    options = {**said, **state, "dataset.path": images}
    settings = load_config(config, overrides=options)
    own_name = settings.dataset_name
    before = read_dataset_file(own_name, home)
    dumped = settings.model_dump(mode="json")
    lasting = {key: get_setting(dumped, key) for key in keep_lasting(said)}
    # Name and place stand first.
    place = {"dataset.name": own_name, "dataset.path": str(home)}
    own = place | lasting | place
    if before is not None and not is_untouched(before):
        options = {key: value for key, value in options.items() if key not in lasting}
        settings = load_config(config, dataset=own_name, overrides=options)
    return Request(settings, {**options, "dataset.name": own_name}, own, config, before)


def _unpack(path: Path, config: Path | None, said: dict[str, Any], state: dict[str, Any]) -> tuple[Path, Path]:
    """Return the folder of the images, and the one that later steps find them in: a dry run unpacks elsewhere."""
    from medvision.config import load_config

    if not path.is_file():
        return path, path.resolve()

    from medvision.data.archives import unpack

    here, there = (load_config(config, overrides=said | more).paths.state / "unpacked" for more in (state, {}))
    images = unpack(path, here)
    if not state:
        say(f"Unpacked in {images}")
    return images, (there / images.name).resolve()
