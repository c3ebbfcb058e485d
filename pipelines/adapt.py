"""Bring a dataset that medvision has never seen: what it is, what is wrong with it, and a first recipe."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.adapt_request import Request, own_state, parse_settings, read_request
from pipelines.audit import run_audit
from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, say_dataset
from pipelines.dataset_file import DatasetFile, describe_dataset
from pipelines.normalize import run_normalize
from pipelines.options import ConfigFile, OnLeak, PatientPattern, Pretrained, Set
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
    said = parse_settings(given, set_)
    with own_state(dry_run) as state:
        request = read_request(dataset_path, name, config, said, state)
        with _recorded(request.settings, dry_run) as recorder:
            return _adapt(request, recorder, num_classes, normalizes=not skip_normalization, dry_run=dry_run)


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
    request: Request, recorder: Recorder, num_classes: int | None, *, normalizes: bool, dry_run: bool
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
    say()
    # The audit looks through the model of the recipe, as it will in a pipeline; what it joins may change the split, and
    # with it the rest of the recipe.
    first = _with_recipe(request, describe_dataset(settings, dataset, request.own, request.before))
    dataset = run_audit(first, recorder, dataset, lasts=not dry_run)
    file = describe_dataset(settings, dataset, request.own, request.before)
    settings = _with_recipe(request, file)
    if normalizes:
        run_normalize(settings, recorder, dataset, mode="display" if dry_run else "save")
    adaptation = _describe(request, dataset, layout, suggestions, file)
    _say_recipe(file)
    _write(adaptation, file, settings, recorder, dry_run=dry_run)
    return adaptation


def _with_recipe(request: Request, file: DatasetFile) -> Config:
    """Return the settings with the recipe in them, as every later step will have them."""
    from medvision.config import load_config

    if file.is_kept:
        return request.settings
    recipe = {each.setting: each.value for each in file.recipe}
    return load_config(request.config, overrides={**recipe, **request.options})


def _describe(
    request: Request, dataset: SplitDataset, layout: Layout, suggestions: list[Suggestion], file: DatasetFile
) -> Adaptation:
    from medvision.data.lineage import without_names
    from medvision.documents.adaptation import Adaptation
    from medvision.files import project_root

    return Adaptation(
        dataset=request.settings.dataset_name,
        # The summary goes to the tracking server, which has no use for folders of this machine.
        settings_file=file.path.relative_to(project_root()).as_posix(),
        labels_from=layout.kind,
        window=dataset.manifest.window,
        audit=without_names(dataset.audit),
        recipe=file.recipe,
        kept=file.differing if file.is_kept else {},
        suggestions=tuple((describe(each), option(each)) for each in suggestions),
        command=_next_command(request, file),
    )


def _next_command(request: Request, file: DatasetFile) -> str:
    """Return the command of the pipeline; a person's file may not say where the images are."""
    parameters = [f"dataset={request.settings.dataset_name}"]
    if file.is_kept and not file.has_path:
        parameters.append(f"dataset_path={request.own['dataset.path']}")
    if request.config is not None:
        parameters.append(f"config={request.config}")
    given = " ".join(f"-P {shlex.quote(parameter)}" for parameter in parameters)
    return f"mlflow run . -e pipeline --env-manager local {given}"


def _say_recipe(file: DatasetFile) -> None:
    """Print each setting with its reason, and what the file has, or had, in its place."""
    has = "the file has" if file.is_kept else "it was"
    say(f"\nRecipe for {file.path.stem}:")
    for each in file.recipe:
        notes = [each.reason] if each.reason else []
        notes += [f"{has} {file.differing[each.setting]}"] if each.setting in file.differing else []
        if notes:
            say(f"  {each.setting} = {each.value}   ({'; '.join(notes)})")
    for setting in file.dropped:
        say(f"  {setting} is no longer set")


def _write(adaptation: Adaptation, file: DatasetFile, settings: Config, recorder: Recorder, *, dry_run: bool) -> None:
    """Write the dataset's settings, unless a person has changed them, and the summary; say what comes next."""
    from medvision.documents.adaptation import SUMMARY, render_summary
    from medvision.files import write_text

    if dry_run:
        say(f"\nDry run: nothing was written. Without --dry-run {file.path} would be {file.state}.")
        return
    if not file.is_kept:
        write_text(file.path, file.text)
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
