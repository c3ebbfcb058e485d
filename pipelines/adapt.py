"""Bring a dataset that medvision has never seen: what it is, what is wrong with it, and a first recipe."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.audit import run_audit
from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, say_dataset
from pipelines.dataset_file import DatasetFile, dataset_file, describe_dataset, render
from pipelines.normalize import run_normalize
from pipelines.options import SETTINGS, ConfigFile, OnLeak, PatientPattern, Pretrained, Set
from pipelines.patients import describe, option, say_suggestions, suggest

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.data.layout import Layout
    from medvision.data.patients import Suggestion
    from medvision.documents.adaptation import Adaptation
    from medvision.tracking.recorder import Recorder

DatasetPath = Annotated[Path, typer.Option(help="Folder, or one zip or .npz, of any layout that the guide lists.")]
Name = Annotated[str | None, typer.Option(help="Name of the dataset; that of its folder if not given.")]
Labels = Annotated[Path | None, typer.Option(help="CSV, TSV or Parquet with a row an image; found if not given.")]
LabelPattern = Annotated[str | None, typer.Option(help="Regular expression on file names; its group is the label.")]
LabelTag = Annotated[str | None, typer.Option(help="DICOM keyword whose value is the label.")]
Window = Annotated[str | None, typer.Option(help="CT window: brain, lung, bone, soft_tissue, or CENTER,WIDTH in HU.")]
NumClasses = Annotated[int | None, typer.Option(min=2, help="How many classes there must be.")]
ImgSize = Annotated[int | None, typer.Option(help="Side of the input, pixels; proposed if not given.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a batch; proposed if not given.")]
SkipNormalization = Annotated[bool, typer.Option("--skip-normalization", help="Leave mean and std to the training.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say all of it, and leave nothing behind.")]


def adapt(
    dataset_path: DatasetPath,
    name: Name = None,
    num_classes: NumClasses = None,
    img_size: ImgSize = None,
    batch_size: BatchSize = None,
    labels: Labels = None,
    label_pattern: LabelPattern = None,
    label_tag: LabelTag = None,
    patient_pattern: PatientPattern = None,
    window: Window = None,
    pretrained: Pretrained = None,
    on_leak: OnLeak = None,
    skip_normalization: SkipNormalization = False,
    dry_run: DryRun = False,
    config: ConfigFile = None,
    set_: Set = None,
) -> Adaptation:
    """Detect a dataset's layout, audit it, split it, and write its settings with a first recipe."""
    given = {
        "labels": labels, "label_pattern": label_pattern, "label_tag": label_tag, "patient_pattern": patient_pattern,
        "window": window, "pretrained": pretrained, "on_leak": on_leak, "image_size": img_size,
        "batch_size": batch_size,
    }  # fmt: skip
    with _where(dry_run) as places:
        request = _read_request(dataset_path, name, places, config, set_, given)
        with _recorded(request.settings, dry_run) as recorder:
            return _adapt(request, recorder, num_classes, normalizes=not skip_normalization, dry_run=dry_run)


@dataclass(frozen=True)
class _Request:
    """What is asked for: the settings, those of the dataset's own file if it has one, and what was given beside."""

    settings: Config
    saved: Config | None
    given: dict[str, Any]
    config: Path | None
    places: dict[str, Any]


@contextlib.contextmanager
def _where(dry_run: bool) -> Iterator[dict[str, Any]]:
    """Yield the settings of where records go; those of a dry run are deleted at its end."""
    if not dry_run:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="medvision-dry-run-") as folder:
        yield {"paths.state": folder}


def _read_request(
    path: Path, name: str | None, places: dict[str, Any], config: Path | None, set_: list[str] | None,
    given: dict[str, Any],
) -> _Request:  # fmt: skip
    """Return what is asked for, on top of the dataset's own file if it is there already."""
    from medvision.config import load_config, parse_overrides

    said = {SETTINGS[option]: value for option, value in given.items() if value is not None}
    said |= parse_overrides([part for text in set_ or [] for part in text.split()])
    place = {"dataset.path": path, **({} if name is None else {"dataset.name": name})}
    own_name = load_config(config, overrides={**said, **places, **place}).dataset_name
    if path.is_file():
        from medvision.data.archives import unpack

        state = load_config(config, overrides={**said, **places}).paths.state
        place["dataset.path"] = unpack(path, state / "unpacked")
        say(f"Unpacked in {place['dataset.path']}")
    place["dataset.name"] = own_name
    saved = load_config(config, dataset=own_name) if dataset_file(own_name).is_file() else None
    settings = load_config(config, dataset=own_name if saved else None, overrides={**said, **places, **place})
    return _Request(settings, saved, said, config, places)


@contextlib.contextmanager
def _recorded(settings: Config, dry_run: bool) -> Iterator[Recorder]:
    """Yield what records the step: a run; or, in a dry run, a journal that nobody reads."""
    from medvision.tracking.recorder import Recorder, open_run

    if dry_run:
        yield Recorder(settings.paths.state / "outbox" / "dry-run")
        return
    with open_run(settings, step="adapt", name=f"adapt {settings.dataset_name}") as recorder:
        yield recorder


def _adapt(
    request: _Request, recorder: Recorder, num_classes: int | None, *, normalizes: bool, dry_run: bool
) -> Adaptation:
    from medvision.data.layout import detect_layout

    settings = request.settings
    layout = detect_layout(settings.dataset_path, settings.dataset, workers=settings.performance.workers)
    say(f"Labels from: {layout.kind}")
    for line in layout.evidence:
        say(f"  {line}")
    dataset = prepare_dataset(settings)
    _check_num_classes(dataset, num_classes)
    say_dataset(dataset)
    suggestions = suggest(layout, dataset)
    say_suggestions(suggestions)
    file = describe_dataset(settings, dataset, request.given, request.saved)
    # Audit and normalization go by the recipe, as every later step will.
    settings = _with_recipe(request, file)
    say()
    dataset = run_audit(settings, recorder, dataset)
    if normalizes:
        run_normalize(settings, recorder, dataset)
    adaptation = _describe(settings, dataset, layout, suggestions, file)
    _write(adaptation, file, settings, recorder, dry_run=dry_run)
    return adaptation


def _with_recipe(request: _Request, file: DatasetFile) -> Config:
    """Return the settings with the recipe in them; a file that is there already stays as it is."""
    from medvision.config import load_config

    if file.exists:
        return request.settings
    return load_config(
        request.config, overrides={**{each.setting: each.value for each in file.recipe}, **request.places}
    )


def _describe(
    settings: Config, dataset: SplitDataset, layout: Layout, suggestions: list[Suggestion], file: DatasetFile
) -> Adaptation:
    from medvision.data.lineage import without_names
    from medvision.documents.adaptation import Adaptation

    # A file that was there before may not say where the images are.
    path = f" -P dataset_path={settings.dataset_path}" if file.lacks_path else ""
    return Adaptation(
        dataset=settings.dataset_name,
        settings_file=str(file.path),
        state=file.state,
        labels_from=layout.kind,
        left_out=dataset.manifest.left_out,
        window=dataset.manifest.window,
        audit=without_names(dataset.audit),
        recipe=file.recipe,
        kept=file.kept,
        suggestions=tuple(f"{describe(each)} To apply it, add: {option(each)}" for each in suggestions),
        command=f"mlflow run . -e pipeline --env-manager local -P dataset={settings.dataset_name}{path}",
    )


def _write(adaptation: Adaptation, file: DatasetFile, settings: Config, recorder: Recorder, *, dry_run: bool) -> None:
    """Write the dataset's settings, unless they are there, and the summary; say what comes next."""
    from medvision.documents.adaptation import SUMMARY, render_summary
    from medvision.files import write_text

    say(f"\nRecipe for {adaptation.dataset}:")
    for each in file.recipe:
        if each.reason:
            instead = f"; the file has {file.kept[each.setting]}" if each.setting in file.kept else ""
            say(f"  {each.setting} = {each.value}   ({each.reason}{instead})")
    if dry_run:
        say(f"\nDry run: nothing was written. Without --dry-run {file.path} would be {file.state}.")
        return
    if not file.exists:
        write_text(file.path, render(file.recipe, adaptation.dataset))
    summary = settings.dataset_dir / SUMMARY
    write_text(summary, render_summary(adaptation))
    recorder.artifact(summary, folder="data")
    say(f"\n{file.path}: {file.state}\nSummary: {summary}\nNext: {adaptation.command}")


def _check_num_classes(dataset: SplitDataset, expected: int | None) -> None:
    from medvision.errors import DataInvalid

    found = dataset.manifest.classes
    if expected is not None and len(found) != expected:
        raise DataInvalid(
            f"Expected {expected} classes, as --num-classes says; found {len(found)}: {', '.join(found[:20])}. "
            "Give the right number, or say by --labels, --label-pattern or --label-tag what the label is."
        )


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(adapt)
