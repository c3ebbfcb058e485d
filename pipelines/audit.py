"""Look for what is wrong with a dataset: leaks, copies, wrong labels, unreadable files, outliers, shortcuts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pipelines.audit_pictures import write_report
from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset, save_audit
from pipelines.options import ConfigFile, Dataset, DatasetPath, OnLeak, PatientPattern, Set, configure
from pipelines.power import find_too_few

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.config import Config
    from medvision.records import Audit, Finding
    from medvision.tracking.recorder import Recorder


def audit(
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Audit:
    """Find leaks, altered copies, conflicting and doubtful labels, unreadable files, outliers and shortcuts."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_, dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak
    )
    with open_run(settings, step="audit", name=f"audit {settings.dataset_name}") as recorder:
        return run_audit(settings, recorder, prepare_dataset(settings)).audit


def run_audit(
    config: Config, recorder: Recorder, dataset: SplitDataset, *, policies: Path | None = None, lasts: bool = True
) -> SplitDataset:
    """Do the step inside a run; return the dataset with the split that keeps the copies that were found together.

    ``lasts``: whether the records stay, and are worth a line that says where they are.
    """
    from medvision.auditing.deep import load_deep, load_or_examine
    from medvision.data.audit import render_text

    known = load_deep(config.dataset_dir, dataset.manifest)
    deep, before = load_or_examine(dataset.manifest, config), dataset.split.fingerprint
    if deep != known:
        dataset = prepare_dataset(config)
    findings = (*dataset.audit.findings, *_too_few(dataset, policies))
    dataset = dataclasses.replace(dataset, audit=dataclasses.replace(dataset.audit, findings=findings))
    save_audit(dataset.audit, config)
    record_dataset(dataset, config, recorder, context="audit")
    say(render_text(dataset.audit, dataset.manifest.names()))
    if dataset.split.fingerprint != before:
        say(
            "The split has changed, since altered copies are kept on one side; a test set that a model was tested on "
            "has not. Compute the normalization anew (medvision normalize), then train again what was trained before."
        )
    write_report(dataset, deep, config, recorder)
    if lasts:
        say(f"Saved in {config.dataset_dir}: audit.json, audit.txt, audit_report.html")
    return dataset


def _too_few(dataset: SplitDataset, policies: Path | None) -> list[Finding]:
    from medvision.records import Finding

    found = find_too_few(dataset, policies=policies)
    if not found:
        return []
    messages = [message for of_policy in found.values() for message in of_policy]
    return [
        Finding(
            name="too_few_for_policy",
            severity="note",
            count=len(messages),
            total=len(messages),
            message=" ".join(messages),
            action="Add test cases, or choose another policy, before anything is trained.",
            effect=f"No model can pass {' or '.join(found)}.",
        )
    ]


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(audit)
