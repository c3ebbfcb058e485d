"""Register a model that has passed its validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.options import ConfigFile, Dataset, DatasetPath, Model, Policies, Set, Version, configure
from pipelines.validate import load_case
from pipelines.verdict import load_signed_verdict

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.config import Config
    from medvision.registry.registration import Registration
    from medvision.tracking.recorder import Recorder


def register(
    model: Model = None,
    version: Version = None,
    policies: Policies = None,
    dataset_path: DatasetPath = None,
    dataset: Dataset = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Registration:
    """Register a model that has passed its validation."""
    from medvision.tracking.recorder import open_run

    settings = configure(config, dataset, set_, model=model, dataset_path=dataset_path)
    with open_run(settings, step="register", name=f"register {settings.training.model}") as recorder:
        return run_register(settings, recorder, version=version, policies=policies)


def run_register(
    config: Config, recorder: Recorder, *, version: str | None = None, policies: Path | None = None
) -> Registration:
    """Do the step inside a run; GateFailed without a signed and passed verdict on what is at hand."""
    from medvision.errors import GateFailed
    from medvision.registry.logged_model import find_logged_model
    from medvision.registry.registration import check_verdict, register_version
    from medvision.tracking.mlflow_sink import tracking_uri
    from medvision.validation.integrity import check_metrics
    from medvision.validation.policy import load_policy
    from medvision.validation.test_ledger import locked_test_set

    verdict, case = load_signed_verdict(config), load_case(config)
    check_verdict(
        verdict,
        package_digest=case.digest,
        evaluation=case.evaluation,
        policy=load_policy(verdict.policy, policies),
        test_fingerprint=locked_test_set(config.dataset_dir),
    )
    edited = check_metrics(case.stated, case.evaluation)
    if edited is not None:
        raise GateFailed(f"{edited.message}. {edited.remedy}.")
    run_id, model_id = find_logged_model(config, case.info.run_key)
    registration = register_version(
        tracking_uri(config),
        model_id=model_id,
        run_id=run_id,
        version=version,
        verdict=verdict,
        evaluation=case.evaluation,
    )
    recorder.tags({"medvision.registered": registration.uri, "medvision.version": registration.version})
    say(f"Registered {registration.name} {registration.version} as version {registration.number}")
    say(f'Serve it: mlflow models serve -m "{registration.uri}" --env-manager local -p 5001')
    return registration


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(register)
