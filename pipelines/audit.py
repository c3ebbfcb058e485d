"""Look for what is wrong with a dataset: leaks, repeats, conflicting labels, unreadable files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset
from pipelines.options import ConfigFile, Dataset, DatasetPath, OnLeak, PatientPattern, Set, configure

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import Audit
    from medvision.tracking.recorder import Recorder


def audit(
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Audit:
    """Find leaks between splits, repeated images, conflicting labels and unreadable files."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_, dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak
    )
    with open_run(settings, step="audit", name=f"audit {settings.dataset_name}") as recorder:
        return run_audit(settings, recorder, prepare_dataset(settings))


def run_audit(config: Config, recorder: Recorder, dataset: SplitDataset) -> Audit:
    """Do the step inside a run."""
    from medvision.data.audit import render_text

    record_dataset(dataset, config, recorder, context="audit")
    say(render_text(dataset.audit, dataset.manifest.names()))
    say(f"Saved in {config.dataset_dir}: audit.json, audit.txt")
    return dataset.audit


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(audit)
