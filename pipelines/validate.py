"""Hold a model's evaluation against the policy: passed or not, with every reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.models import EVALUATION_FILE, PACKAGE, VERDICT_FILE, outputs_dir, results_dir
from pipelines.options import ConfigFile, Dataset, DatasetPath, Model, Policy, Set, configure

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.config import Config
    from medvision.records import Verdict
    from medvision.tracking.recorder import Recorder


def validate(
    model: Model = None,
    policy: Policy = None,
    dataset_path: DatasetPath = None,
    dataset: Dataset = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Verdict:
    """Hold a model's evaluation against the medical policy."""
    from medvision.tracking.recorder import open_run

    settings = configure(config, dataset, set_, model=model, dataset_path=dataset_path)
    with open_run(settings, step="validate", name=f"validate {settings.training.model}") as recorder:
        return run_validate(settings, recorder, policy=policy)


def run_validate(config: Config, recorder: Recorder, *, policy: Path | None = None) -> Verdict:
    """Do the step inside a run; GateFailed, once the verdict is recorded, if a rule is not met."""
    from medvision.errors import GateFailed
    from medvision.files import write_text
    from medvision.models.package import load_package, package_digest
    from medvision.records import Evaluation, load_record, save_record
    from medvision.validation.gate import judge, render_text
    from medvision.validation.policy import load_policy

    folder = results_dir(config)
    evaluation = load_record(Evaluation, folder / EVALUATION_FILE)
    package = outputs_dir(config) / PACKAGE
    (info, _), digest = load_package(package), package_digest(package)
    verdict = judge(evaluation, load_policy(policy), package_digest=digest, split_fingerprint=info.split_fingerprint)
    save_record(verdict, folder / VERDICT_FILE)
    text = render_text(verdict)
    write_text(folder / "medical_validation.txt", text)
    recorder.tags({"medvision.verdict": "passed" if verdict.passed else "failed", "medvision.package_digest": digest})
    recorder.metrics({"validation/passed": float(verdict.passed)}, step=0)
    recorder.artifact(folder / VERDICT_FILE, folder="validation")
    recorder.artifact(folder / "medical_validation.txt", folder="validation")
    say(text)
    if not verdict.passed:
        n_failed = sum(not outcome.passed for outcome in verdict.outcomes)
        raise GateFailed(
            f"{verdict.model} did not pass its medical validation: {n_failed} of {len(verdict.outcomes)} rules are not "
            f"met (above, and in {folder / VERDICT_FILE}). Nothing is registered."
        )
    return verdict


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(validate)
