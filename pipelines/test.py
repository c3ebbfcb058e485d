"""Score the test split in seconds: accuracy and confusion matrix, for daily work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset
from pipelines.models import results_dir, trained_package
from pipelines.options import ConfigFile, Dataset, DatasetPath, Model, OnLeak, PatientPattern, Set, configure
from pipelines.scoring import check_lineage, look_at_test_set, score_test_set

QUICK_TEST_FILE = "quick_test.json"

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import QuickTest
    from medvision.tracking.recorder import Recorder


def test(
    model: Model = None,
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> QuickTest:
    """Test a trained model quickly: accuracy and confusion matrix. The ledger of the test set counts it as a look."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_,
        model=model, dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak,
    )  # fmt: skip
    with open_run(settings, step="test", name=f"test {settings.training.model}") as recorder:
        return run_test(settings, recorder, prepare_dataset(settings))


def run_test(config: Config, recorder: Recorder, dataset: SplitDataset) -> QuickTest:
    """Do the step inside a run."""
    from medvision.evaluation.intervals import proportion
    from medvision.evaluation.metrics import confusion_matrix
    from medvision.evaluation.report import render_confusion
    from medvision.models.package import load_package
    from medvision.records import QuickTest, record_fingerprint, save_record

    info, networks = load_package(trained_package(config))
    check_lineage(info, dataset)
    record_dataset(dataset, config, recorder, context="test")
    looks = look_at_test_set(info, dataset, config, step="test")
    tested = score_test_set(info, networks, dataset, config).predictions
    confusion = confusion_matrix(tested.y_true, tested.y_pred, len(info.classes))
    result = QuickTest(
        model=info.name,
        package_digest=record_fingerprint(info),
        accuracy=proportion(tested.y_pred == tested.y_true, tested.groups),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        looks=looks,
    )
    save_record(result, results_dir(config) / QUICK_TEST_FILE)
    recorder.artifact(results_dir(config) / QUICK_TEST_FILE, folder="evaluation")
    recorder.metrics({"test/accuracy": float(result.accuracy.value or 0.0)}, step=0)
    say(f"{info.name}: {result.accuracy.successes} of {result.accuracy.n} right, accuracy {result.accuracy.value:.3f} "
        f"({result.accuracy.low:.3f} to {result.accuracy.high:.3f}; {result.accuracy.method})\n")  # fmt: skip
    say(render_confusion(info.classes, result.confusion))
    say(f"\nThis test set has been looked at {looks} time{'s' if looks != 1 else ''}.")
    return result


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(test)
