"""The whole life of a model, from images to registry, in one process: each step a nested run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.audit import run_audit
from pipelines.dataset import prepare_dataset
from pipelines.evaluate import key_figures, run_evaluate
from pipelines.normalize import run_normalize
from pipelines.options import (
    BatchSize,
    ConfigFile,
    Dataset,
    DatasetPath,
    Epochs,
    Grayscale,
    ImageSize,
    LearningRate,
    Model,
    OnLeak,
    PatientPattern,
    Policies,
    PolicyName,
    Pretrained,
    Set,
    Strategy,
    Version,
    configure,
)
from pipelines.register import run_register
from pipelines.steps import nested_step
from pipelines.train import run_train
from pipelines.validate import run_validate

if TYPE_CHECKING:
    from medvision.registry.registration import Registration


def pipeline(
    model: Model = None,
    epochs: Epochs = None,
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    pretrained: Pretrained = None,
    strategy: Strategy = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    image_size: ImageSize = None,
    grayscale: Grayscale = None,
    on_leak: OnLeak = None,
    policy: PolicyName = None,
    policies: Policies = None,
    version: Version = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Registration:
    """Run audit, normalize, train, evaluate, validate and register; a model that fails validation is not registered."""
    from medvision.errors import ConfigInvalid
    from medvision.registry.registration import check_semantic
    from medvision.tracking.recorder import open_run
    from medvision.training.launch import launched_rank
    from medvision.validation.keys import has_key, load_signing_key
    from medvision.validation.policy import load_policy

    if launched_rank() is not None:
        raise ConfigInvalid("A launcher starts one process a device, and a pipeline is one: give it the train step.")
    settings = configure(
        config, dataset, set_,
        model=model, epochs=epochs, dataset_path=dataset_path, patient_pattern=patient_pattern, pretrained=pretrained,
        strategy=strategy, batch_size=batch_size, lr=lr, image_size=image_size, grayscale=grayscale, on_leak=on_leak,
    )  # fmt: skip
    # What would stop the last steps is said before hours of training.
    load_policy(policy, policies)
    if has_key(settings.paths.state):
        load_signing_key(settings.paths.state)
    check_semantic(version)
    with open_run(settings, step="pipeline", name=f"pipeline {settings.training.model}") as parent:
        prepared = prepare_dataset(settings)
        with nested_step("audit", settings, parent) as recorder:
            prepared = run_audit(settings, recorder, prepared, policies=policies)
        with nested_step("normalize", settings, parent) as recorder:
            run_normalize(settings, recorder, prepared)
        with nested_step("train", settings, parent) as recorder:
            run_train(settings, recorder, prepared, policies=policies)
        with nested_step("evaluate", settings, parent) as recorder:
            evaluation = run_evaluate(settings, recorder, prepared)
        # The first row that a person sees of a pipeline is its own.
        parent.metrics(key_figures(evaluation), step=0)
        with nested_step("validate", settings, parent) as recorder:
            run_validate(settings, recorder, prepared, policy=policy, policies=policies)
        with nested_step("register", settings, parent) as recorder:
            return run_register(settings, recorder, version=version, policies=policies)


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(pipeline)
