"""Make an archive of all that proves a registered version, with an index of what supports which checklist's item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.options import ConfigFile, Set, configure

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.documents.evidence import Archive
    from medvision.registry.packages import FoundModel

RegisteredModel = Annotated[str, typer.Argument(help="NAME/3, NAME/1.2.0, NAME@champion, or a models:/ URI.")]
Out = Annotated[Path | None, typer.Option(help="The archive, a .zip; results/evidence/NAME-VERSION.zip if not given.")]


@dataclass(frozen=True)
class Counts:
    """How many items of a checklist are supported, missing, and for people to write."""

    checklist: str
    supported: int
    missing: int
    yours: int


@dataclass(frozen=True)
class Evidence:
    """An archive that was made, and what its index says."""

    model: str
    version: str
    path: str
    sha256: str
    n_files: int
    checklists: tuple[Counts, ...]
    problems: tuple[str, ...]


def evidence(model: RegisteredModel, out: Out = None, config: ConfigFile = None, set_: Set = None) -> Evidence:
    """Make an archive of all that proves a registered version, and say what is missing in it."""
    return run_evidence(configure(config, None, set_), model, out)


def run_evidence(config: Config, model: str, out: Path | None = None) -> Evidence:
    """Do the step; ConfigInvalid for what is no registered version."""
    from mlflow import MlflowClient

    from medvision.documents.evidence import write_archive
    from medvision.documents.evidence_material import gather_material
    from medvision.errors import ConfigInvalid
    from medvision.registry.packages import look_up
    from medvision.tracking.mlflow_sink import prepare, registry_uri, tracking_uri

    if out is not None and out.suffix != ".zip":
        raise ConfigInvalid(f"--out expects a .zip file; found {out}.")
    prepare()
    uri = tracking_uri(config)
    found = look_up(uri, model, again="evidence")
    if not found.number:
        raise ConfigInvalid(f"{model} is no registered version. Give NAME/NUMBER, NAME/1.2.0 or NAME@champion.")
    material = gather_material(config, found, MlflowClient(uri, registry_uri(config)), uri)
    archive = write_archive(out or _default_path(config, found), material)
    _say(archive)
    return _describe(archive, found)


def _default_path(config: Config, found: FoundModel) -> Path:
    return config.paths.results / "evidence" / f"{found.name}-{found.version or found.number}.zip"


def _say(archive: Archive) -> None:
    say(f"{archive.path}: {archive.n_files} files")
    for each in archive.checklists:
        say(
            f"  {each.title:<11} {each.count('supported'):>3} of {len(each.answers)} items supported, "
            f"{each.count('missing')} missing, {each.count('yours')} yours to write"
        )
    for problem in archive.problems:
        say(f"!! {problem}")
    say("What is missing, and what makes it, stands in index.html. The archive supports a submission; it is none.")


def _describe(archive: Archive, found: FoundModel) -> Evidence:
    return Evidence(
        model=found.name,
        version=found.version,
        path=str(archive.path),
        sha256=archive.sha256,
        n_files=archive.n_files,
        checklists=tuple(
            Counts(each.title, each.count("supported"), each.count("missing"), each.count("yours"))
            for each in archive.checklists
        ),
        problems=archive.problems,
    )


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(evidence)
