"""The whole life of a model, from images to registry, in one process: each step a nested run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipelines.audit import run_audit
from pipelines.console import say
from pipelines.evaluate import run_evaluate
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
    policy: Policy = None,
    version: Version = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Registration:
    """Run normalize, audit, train, evaluate, validate and register; a model that fails validation is not registered."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_,
        model=model, epochs=epochs, dataset_path=dataset_path, patient_pattern=patient_pattern, pretrained=pretrained,
        strategy=strategy, batch_size=batch_size, lr=lr, image_size=image_size, grayscale=grayscale, on_leak=on_leak,
    )  # fmt: skip
    steps = {
        "audit": run_audit,
        "normalize": run_normalize,
        "train": run_train,
        "evaluate": run_evaluate,
        "validate": lambda config, recorder: run_validate(config, recorder, policy=policy),
        "register": lambda config, recorder: run_register(config, recorder, version=version),
    }
    with open_run(settings, step="pipeline") as parent:
        for name, run in steps.items():
            say(f"\n== {name}")
            started = time.monotonic()
            with open_run(settings, step=name, parent=parent) as recorder:
                record = run(settings, recorder)
            seconds = time.monotonic() - started
            parent.metrics({f"seconds/{name}": seconds}, step=0)
            say(f"   ({seconds:.1f} s)")
    return record  # type: ignore[return-value]


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(pipeline)
