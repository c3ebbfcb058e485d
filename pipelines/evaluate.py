"""Score a trained model on the test split, and say how sure the figures are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset
from pipelines.models import EVALUATION_FILE, PACKAGE, outputs_dir, results_dir
from pipelines.options import ConfigFile, Dataset, DatasetPath, Model, OnLeak, PatientPattern, Set, configure

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import Evaluation, PackageInfo
    from medvision.tracking.recorder import Recorder

PREDICTIONS_FILE = "predictions.parquet"
_REPORT_FILES = (
    EVALUATION_FILE,
    PREDICTIONS_FILE,
    "evaluation_report.txt",
    "confusion_matrix.png",
    "per_class_metrics.png",
)


def evaluate(
    model: Model = None,
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
    with open_run(settings, step="evaluate", name=f"evaluate {settings.training.model}") as recorder:
        return run_evaluate(settings, recorder, prepare_dataset(settings))


def run_evaluate(config: Config, recorder: Recorder, dataset: SplitDataset) -> Evaluation:
    """Do the step inside a run."""
    import numpy as np

    from medvision.data.cache import open_cache
    from medvision.evaluation.metrics import evaluate_predictions
    from medvision.evaluation.predictions import save_predictions
    from medvision.evaluation.scoring import place, score
    from medvision.files import sha256_file
    from medvision.models.devices import choose_device
    from medvision.models.package import load_package, package_digest

    package = outputs_dir(config) / PACKAGE
    info, network = load_package(package)
    _check_lineage(info, dataset)
    record_dataset(dataset, config, recorder, context="test")
    rows = dataset.manifest.rows.iloc[dataset.split.indices("test")]
    images = open_cache(
        dataset.manifest,
        image_size=info.preprocessing.image_size,
        channels=info.preprocessing.channels,
        folder=config.paths.state / "cache",
        workers=config.performance.workers,
    )
    y_true = rows.label.to_numpy()
    placed = place(network, choose_device(config.performance))
    y_score = score(placed, images[np.asarray(rows.index)], batch_size=64)
    predictions = results_dir(config) / PREDICTIONS_FILE
    save_predictions(predictions, rows.image_id, rows.patient_key, y_true, y_score, info.classes)
    evaluation = evaluate_predictions(
        y_true=y_true,
        y_score=y_score,
        classes=info.classes,
        model=info.name,
        dataset=info.dataset,
        package_digest=package_digest(package),
        split_fingerprint=dataset.split.fingerprint,
        predictions_sha256=sha256_file(predictions),
        n_patients=int(rows.patient_key.nunique()) if dataset.manifest.knows_patients else None,
    )
    _report(evaluation, info, config, recorder)
    return evaluation


def _check_lineage(info: PackageInfo, dataset: SplitDataset) -> None:
    from medvision.errors import FingerprintMismatch

    if info.split_fingerprint != dataset.split.fingerprint:
        raise FingerprintMismatch(
            f"{info.name} was trained on split {info.split_fingerprint[:12]} of {info.dataset}, but the split at hand "
            f"is {dataset.split.fingerprint[:12]}: its test images may have been trained on. "
            "Evaluate with the settings of the training, or train again."
        )


def _report(evaluation: Evaluation, info: PackageInfo, config: Config, recorder: Recorder) -> None:
    from medvision.evaluation.plots import plot_confusion, plot_per_class
    from medvision.evaluation.report import render_text
    from medvision.files import write_text
    from medvision.records import save_record

    folder = results_dir(config)
    save_record(evaluation, folder / EVALUATION_FILE)
    text = render_text(evaluation)
    write_text(folder / "evaluation_report.txt", text)
    plot_confusion(evaluation, folder / "confusion_matrix.png")
    plot_per_class(evaluation, folder / "per_class_metrics.png")
    recorder.tags({"medvision.trained_by": info.run_key, "medvision.package_digest": evaluation.package_digest})
    recorder.metrics({**key_figures(evaluation), **_class_figures(evaluation)}, step=0)
    for name in _REPORT_FILES:
        recorder.artifact(folder / name, folder="evaluation")
    say(text)
    say(f"Saved in {folder}")


def key_figures(evaluation: Evaluation) -> dict[str, float]:
    """Return the figures by which models are compared at a glance."""
    figures = {
        "test/accuracy": evaluation.accuracy.value,
        "test/accuracy_low": evaluation.accuracy.low,
        "test/accuracy_high": evaluation.accuracy.high,
        "test/balanced_accuracy": evaluation.balanced_accuracy,
    }
    return figures if evaluation.auroc is None else {**figures, "test/auroc": evaluation.auroc}


def _class_figures(evaluation: Evaluation) -> dict[str, float]:
    return {
        f"test/{name}/{figures.name}": getattr(figures, name).value
        for figures in evaluation.per_class
        for name in ("sensitivity", "specificity")
    }


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(evaluate)
