"""Score a trained model on the test split, and say how sure the figures are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.checkpoint import pack_checkpoint
from pipelines.console import say
from pipelines.crossval import cross_validate, plan_folds
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset
from pipelines.fetch import fetch_package, is_checkpoint
from pipelines.html import write_html
from pipelines.models import (
    DETAILS_FILE,
    EVALUATION_FILE,
    PACKAGE,
    PREDICTIONS_FILE,
    outputs_dir,
    plan_of,
    results_dir,
    trained_package,
    with_model,
)
from pipelines.options import (
    ConfigFile,
    Dataset,
    DatasetPath,
    Model,
    OnLeak,
    PatientPattern,
    Policies,
    PolicyName,
    Set,
    configure,
)
from pipelines.pictures import WITH_IMAGES, draw_pictures
from pipelines.robustness import measure_robustness
from pipelines.scoring import Scored, check_lineage, look_at_test_set, measure_indeterminate, score_test_set
from pipelines.speed import measure_package
from pipelines.subgroups import measure_subgroups, subgroup_columns
from pipelines.train import resolve

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.evaluation.predictions import Predictions
    from medvision.records import Details, Evaluation, PackageInfo
    from medvision.tracking.recorder import Recorder

Source = Annotated[
    str | None, typer.Option(help="Evaluate a package from elsewhere: its folder, models:/NAME/1, a run id, or a .pth.")
]
Detailed = Annotated[bool, typer.Option("--detailed", help="Also speed, and subgroups where columns are named.")]
MedicalValidation = Annotated[bool, typer.Option("--medical-validation", help="Also validate, as the next step.")]
CrossValidation = Annotated[bool, typer.Option("--cross-validation", help="Also train and test the recipe in folds.")]
RobustnessTest = Annotated[bool, typer.Option("--robustness-test", help="Also score worse images: noise, blur ...")]
Compare = Annotated[str | None, typer.Option(help="Also compare with these trained models: 'A B'.")]


@dataclass(frozen=True)
class Extras:
    """What an evaluation is asked for beside its figures and pictures."""

    detailed: bool = False
    cross_validation: bool = False
    robustness_test: bool = False


def evaluate(
    model: Model = None,
    source: Source = None,
    detailed: Detailed = False,
    medical_validation: MedicalValidation = False,
    cross_validation: CrossValidation = False,
    robustness_test: RobustnessTest = False,
    compare: Compare = None,
    policy: PolicyName = None,
    policies: Policies = None,
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Evaluation:
    """Evaluate a trained model on the test split."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_,
        model=model, dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak,
    )  # fmt: skip
    if source:
        settings = fetch_package(settings, source)
    extras = Extras(detailed, cross_validation, robustness_test)
    with open_run(settings, step="evaluate", name=f"evaluate {settings.training.model}") as recorder:
        prepared = prepare_dataset(settings)
        if source and is_checkpoint(source):
            pack_checkpoint(Path(source), settings, recorder, prepared)
        for other in (compare or "").split():
            trained_package(with_model(settings, other))
        evaluation = run_evaluate(settings, recorder, prepared, extras=extras)
        if compare:
            _compare(settings, recorder, prepared, compare, evaluation)
        if medical_validation:
            _validate(settings, recorder, prepared, policy, policies)
    return evaluation


def run_evaluate(
    config: Config, recorder: Recorder, dataset: SplitDataset, *, extras: Extras | None = None
) -> Evaluation:
    """Do the step inside a run."""
    from medvision.evaluation.details import describe_details
    from medvision.evaluation.metrics import evaluate_predictions
    from medvision.evaluation.predictions import load_predictions, save_predictions
    from medvision.files import sha256_file
    from medvision.models.package import load_package
    from medvision.records import record_fingerprint

    (info, networks), path = load_package(trained_package(config)), results_dir(config) / PREDICTIONS_FILE
    check_lineage(info, dataset)
    _check(info, extras or Extras(), dataset, config)
    record_dataset(dataset, config, recorder, context="test")
    looks = look_at_test_set(info, dataset, config, step="evaluate")
    scored = score_test_set(info, networks, dataset, config)
    save_predictions(path, scored.predictions)
    # From the table, so that whoever has it can compute the same figures.
    predictions = load_predictions(path)
    evaluation = evaluate_predictions(
        predictions,
        model=info.name,
        dataset=info.dataset,
        package_digest=record_fingerprint(info),
        split_fingerprint=dataset.split.fingerprint,
        predictions_sha256=sha256_file(path),
        plan=plan_of(config),
    )
    details = describe_details(evaluation, predictions, info, prevalence=config.evaluation.prevalence, looks=looks)
    details = _extend(details, extras or Extras(), predictions, scored, dataset, config, recorder)
    _report(evaluation, details, predictions, scored, dataset, config, recorder)
    return evaluation


def _check(info: PackageInfo, extras: Extras, dataset: SplitDataset, config: Config) -> None:
    """Raise what would stop the last part of the evaluation before the test set is looked at."""
    from medvision.errors import ConfigInvalid
    from medvision.evaluation.decisions import check_critical

    check_critical(config.evaluation, info.classes)
    fitted = {point.class_name for point in info.operating_points}
    for name in {*config.evaluation.critical_classes, *config.evaluation.prevalence} - fitted:
        raise ConfigInvalid(
            f"{info.name} was packed without an operating point of {name!r}: it is fitted on val when a model is "
            f"packed. Train again with --resume and --set evaluation.critical_classes=[{name}]."
        )
    if extras.detailed:
        subgroup_columns(dataset, config)
    if extras.cross_validation:
        plan_folds(resolve(config), dataset)


def _extend(
    details: Details,
    extras: Extras,
    predictions: Predictions,
    scored: Scored,
    dataset: SplitDataset,
    config: Config,
    recorder: Recorder,
) -> Details:
    """Add the share of images outside the domain, and what was asked for."""
    from medvision.evaluation.diversity import pairwise_diversity

    info, networks = scored.info, scored.networks
    details = dataclasses.replace(details, indeterminate=measure_indeterminate(scored, dataset, config))
    if len(info.members) > 1:
        names = tuple(member.model for member in info.members)
        if len(set(names)) < len(names):
            # Members of one training have one name.
            names = tuple(f"{name} {number}" for number, name in enumerate(names, start=1))
        pairs = pairwise_diversity(names, scored.members, predictions.y_true)
        details = dataclasses.replace(details, diversity=pairs)
    if extras.detailed:
        subgroups = measure_subgroups(predictions, dataset, config)
        speed = measure_package(info, networks, outputs_dir(config) / PACKAGE, config)
        details = dataclasses.replace(details, subgroups=subgroups, speed=speed)
    if extras.robustness_test:
        details = dataclasses.replace(details, robustness=measure_robustness(info, networks, dataset, config))
    if extras.cross_validation:
        details = dataclasses.replace(details, cross_validation=cross_validate(config, recorder, dataset))
    return details


def _report(
    evaluation: Evaluation,
    details: Details,
    predictions: Predictions,
    scored: Scored,
    dataset: SplitDataset,
    config: Config,
    recorder: Recorder,
) -> None:
    from medvision.evaluation.details_report import render_details
    from medvision.evaluation.report import render_text
    from medvision.files import write_text
    from medvision.records import save_record

    folder = results_dir(config)
    save_record(evaluation, folder / EVALUATION_FILE)
    save_record(details, folder / DETAILS_FILE)
    text = render_text(evaluation) + "\n" + render_details(details, evaluation)
    write_text(folder / "evaluation_report.txt", text)
    pictures = draw_pictures(evaluation, details, predictions, scored, dataset, config)
    tags = {"medvision.trained_by": scored.info.run_key, "medvision.package_digest": evaluation.package_digest}
    recorder.tags({**tags, "medvision.test_looks": details.looks})
    recorder.metrics({**key_figures(evaluation), **_class_figures(evaluation)}, step=0)
    for name in (EVALUATION_FILE, DETAILS_FILE, PREDICTIONS_FILE, "evaluation_report.txt", *pictures):
        if config.tracking.share_images or name not in WITH_IMAGES:
            recorder.artifact(folder / name, folder="evaluation")
    write_html(config, recorder, evaluation)
    say(text)
    say(f"Saved in {folder}")


def _compare(config: Config, recorder: Recorder, dataset: SplitDataset, others: str, evaluation: Evaluation) -> None:
    from pipelines.compare import run_compare

    name = config.training.model
    run_compare(config, recorder, dataset, models=[name, *others.split()], known={name: evaluation})


def _validate(
    config: Config, recorder: Recorder, dataset: SplitDataset, policy: str | None, policies: Path | None
) -> None:
    from pipelines.steps import nested_step
    from pipelines.validate import run_validate

    with nested_step("validate", config, recorder) as nested:
        run_validate(config, nested, dataset, policy=policy, policies=policies)


def key_figures(evaluation: Evaluation) -> dict[str, float]:
    """Return the figures by which models are compared at a glance."""
    overall = evaluation.overall
    figures = {
        "test/accuracy": overall.accuracy.value,
        "test/accuracy_low": overall.accuracy.low,
        "test/accuracy_high": overall.accuracy.high,
        "test/balanced_accuracy": overall.balanced_accuracy.value,
        "test/macro_f1": overall.macro_f1.value,
        "test/auroc": overall.auroc.value,
        "test/auprc": overall.auprc.value,
        "test/ece": overall.ece.value,
        "test/brier": overall.brier.value,
    }
    return {name: value for name, value in figures.items() if value is not None}


def _class_figures(evaluation: Evaluation) -> dict[str, float]:
    figures = {
        f"test/{name}/{figures.name}": getattr(figures, name).value
        for figures in evaluation.per_class
        for name in ("sensitivity", "specificity", "auroc")
    }
    return {name: value for name, value in figures.items() if value is not None}


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(evaluate)
