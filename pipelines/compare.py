"""Compare several models on the same test cases; what is not trained yet is trained first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset
from pipelines.evaluate import run_evaluate
from pipelines.fetch import fetch_package, is_source
from pipelines.models import PACKAGE, PREDICTIONS_FILE, outputs_dir, plan_of, results_dir, with_model
from pipelines.options import (
    ConfigFile,
    Dataset,
    DatasetPath,
    Epochs,
    ImageSize,
    OnLeak,
    PatientPattern,
    Pretrained,
    Set,
    configure,
)
from pipelines.scoring import check_lineage
from pipelines.speed import measure_package
from pipelines.steps import nested_step
from pipelines.train import run_train

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.config import Config
    from medvision.records import ComparedModel, Comparison, Evaluation
    from medvision.tracking.recorder import Recorder

Models = Annotated[
    str, typer.Option(help="Models, separated by blanks: 'resnet18 densenet121'; also run ids and models:/NAME/1.")
]
FOLDER = "comparison"
_FILES = (
    "comparison_results.json",
    "comparison_results.csv",
    "comparison_report.txt",
    "accuracy_comparison.png",
    "multi_metric_comparison.png",
    "accuracy_vs_size.png",
    "inference_speed.png",
)


def compare(
    models: Models,
    epochs: Epochs = None,
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    pretrained: Pretrained = None,
    image_size: ImageSize = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Comparison:
    """Train what is missing, evaluate all models on the same cases, and say which is better and how surely."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_,
        epochs=epochs, dataset_path=dataset_path, patient_pattern=patient_pattern, pretrained=pretrained,
        image_size=image_size, on_leak=on_leak,
    )  # fmt: skip
    names = [fetch_package(settings, each).training.model if is_source(each) else each for each in models.split()]
    with open_run(settings, step="compare", name=f"compare {' '.join(names)}") as recorder:
        return run_compare(settings, recorder, prepare_dataset(settings), models=names)


def run_compare(
    config: Config,
    recorder: Recorder,
    dataset: SplitDataset,
    *,
    models: list[str],
    known: dict[str, Evaluation] | None = None,
) -> Comparison:
    """Do the step inside a run; the evaluations of ``known`` models are not made again."""
    from medvision.errors import ConfigInvalid
    from medvision.evaluation.compare import compare_models
    from medvision.evaluation.predictions import load_predictions
    from medvision.records import Comparison

    names = list(dict.fromkeys(models))
    if len(names) < 2:
        raise ConfigInvalid(f"A comparison needs at least two models; found {len(names)}: --models 'A B'.")
    settings = {name: with_model(config, name) for name in names}
    for each in settings.values():
        _check(each, dataset)
    record_dataset(dataset, config, recorder, context="test")
    compared = [_evaluate(settings[name], recorder, dataset, (known or {}).get(name)) for name in names]
    predictions = [(name, load_predictions(results_dir(settings[name]) / PREDICTIONS_FILE)) for name in names]
    # The best first, by the figure that no majority class can carry.
    compared.sort(key=lambda model: model.evaluation.overall.balanced_accuracy.value or 0.0, reverse=True)
    comparison = Comparison(tuple(compared), compare_models(predictions, plan_of(config)))
    _report(comparison, config.paths.results / FOLDER, recorder)
    return comparison


def _check(config: Config, dataset: SplitDataset) -> None:
    """Raise, before the first model is trained, what would stop the last."""
    from medvision.models.catalog import OWN, find
    from medvision.models.package import load_info
    from medvision.models.weights import find_weights

    package = outputs_dir(config) / PACKAGE
    if package.is_dir():
        check_lineage(load_info(package), dataset)
        return
    entry, pretrained = find(config.training.model), config.training.pretrained
    if not isinstance(pretrained, bool) and entry.timm_name != OWN:
        find_weights(pretrained, config.training.model, entry.timm_name)


def _evaluate(
    config: Config, recorder: Recorder, dataset: SplitDataset, evaluation: Evaluation | None
) -> ComparedModel:
    from medvision.models.package import load_package
    from medvision.records import ComparedModel

    package = outputs_dir(config) / PACKAGE
    if not package.is_dir():
        with nested_step("train", config, recorder) as nested:
            run_train(config, nested, dataset)
    if evaluation is None:
        with nested_step("evaluate", config, recorder) as nested:
            evaluation = run_evaluate(config, nested, dataset)
    info, networks = load_package(package)
    return ComparedModel(config.training.model, evaluation, measure_package(info, networks, package, config))


def _report(comparison: Comparison, folder: Path, recorder: Recorder) -> None:
    from medvision.evaluation.comparison_plots import plot_comparison
    from medvision.evaluation.comparison_report import render_csv, render_text
    from medvision.files import write_text
    from medvision.records import save_record

    save_record(comparison, folder / "comparison_results.json")
    write_text(folder / "comparison_results.csv", render_csv(comparison))
    text = render_text(comparison)
    write_text(folder / "comparison_report.txt", text)
    plot_comparison(comparison, folder)
    for model in comparison.models:
        accuracy = model.evaluation.overall.balanced_accuracy.value
        if accuracy is not None:
            recorder.metrics({f"balanced_accuracy/{model.name}": accuracy}, step=0)
    for name in _FILES:
        recorder.artifact(folder / name, folder="comparison")
    say(text)
    say(f"Saved in {folder}")


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(compare)
