"""The whole life of a model, from images to registry, in one process: each step a nested run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.audit import run_audit
from pipelines.console import say
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
    Policy,
    Pretrained,
    Set,
    Strategy,
    Version,
    configure,
)
from pipelines.register import run_register
from pipelines.train import run_train
from pipelines.validate import run_validate

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.registry.registration import Registration
    from medvision.tracking.recorder import Recorder


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
    policy: Policy = None,
    version: Version = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Registration:
    """Run audit, normalize, train, evaluate, validate and register; a model that fails validation is not registered."""
    from medvision.registry.registration import check_semantic
    from medvision.tracking.recorder import open_run
    from medvision.validation.policy import load_policy

    settings = configure(
        config, dataset, set_,
        model=model, epochs=epochs, dataset_path=dataset_path, patient_pattern=patient_pattern, pretrained=pretrained,
        strategy=strategy, batch_size=batch_size, lr=lr, image_size=image_size, grayscale=grayscale, on_leak=on_leak,
    )  # fmt: skip
    # What would stop the last steps is said before hours of training.
    load_policy(policy)
    check_semantic(version)
    with open_run(settings, step="pipeline", name=f"pipeline {settings.training.model}") as parent:
        prepared = prepare_dataset(settings)
        with _step("audit", settings, parent) as recorder:
            run_audit(settings, recorder, prepared)
        with _step("normalize", settings, parent) as recorder:
            run_normalize(settings, recorder, prepared)
        with _step("train", settings, parent) as recorder:
            run_train(settings, recorder, prepared)
        with _step("evaluate", settings, parent) as recorder:
            evaluation = run_evaluate(settings, recorder, prepared)
        # The first row that a person sees of a pipeline is its own.
        parent.metrics(key_figures(evaluation), step=0)
        with _step("validate", settings, parent) as recorder:
            run_validate(settings, recorder, policy=policy)
        with _step("register", settings, parent) as recorder:
            return run_register(settings, recorder, version=version)


@contextlib.contextmanager
def _step(name: str, config: Config, parent: Recorder) -> Iterator[Recorder]:
    """Open a nested run for a step, and say and record how long it took."""
    from medvision.tracking.recorder import open_run

    say(f"\n== {name}")
    started = time.monotonic()
    with open_run(config, step=name, name=f"{name} {config.training.model}", parent=parent) as recorder:
        yield recorder
    seconds = time.monotonic() - started
    parent.metrics({f"seconds/{name}": seconds}, step=0)
    say(f"   ({seconds:.1f} s)")


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(pipeline)
