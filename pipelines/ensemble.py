"""Join trained models into one package, and fit on val how much each of them counts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset
from pipelines.models import PACKAGE, check_new_name, outputs_dir, registered_name, trained_package, with_model
from pipelines.options import ConfigFile, Dataset, DatasetPath, OnLeak, PatientPattern, Set, configure
from pipelines.scoring import check_lineage, pack

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import PackageInfo
    from medvision.tracking.recorder import Recorder

Models = Annotated[str, typer.Option(help="Trained models, separated by blanks: 'resnet18 densenet121'.")]
Rule = Annotated[str, typer.Option(help="How they are joined: soft (weighted mean), hard (votes) or stacking.")]
Name = Annotated[str, typer.Option(help="Name of the ensemble: from here on a --model like any other.")]


def ensemble(
    models: Models,
    rule: Rule = "soft",
    name: Name = "ensemble",
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> PackageInfo:
    """Join trained models into one, which is evaluated, validated, registered and served like any other."""
    from medvision.tracking.recorder import open_run

    settings = configure(
        config, dataset, set_,
        model=name, dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak,
    )  # fmt: skip
    with open_run(settings, step="ensemble", name=f"ensemble {name}") as recorder:
        return run_ensemble(settings, recorder, prepare_dataset(settings), models=models.split(), rule=rule)


def run_ensemble(
    config: Config, recorder: Recorder, dataset: SplitDataset, *, models: list[str], rule: str
) -> PackageInfo:
    """Do the step inside a run."""
    from medvision.errors import ConfigInvalid
    from medvision.models.package import load_package
    from medvision.records import record_fingerprint
    from medvision.registry.logged_model import record_model
    from medvision.training.ensembling import check_rule, join_packages

    check_rule(rule)
    check_new_name(config)
    if len(set(models)) < len(models) or config.training.model in models:
        raise ConfigInvalid(
            f"An ensemble joins different models under another name; found --models {' '.join(models)!r}."
        )
    folders = [trained_package(with_model(config, model)) for model in models]
    record_dataset(dataset, config, recorder, context="train")
    loaded = [load_package(folder) for folder in folders]
    networks = [network for _, own in loaded for network in own]
    joined = join_packages([info for info, _ in loaded])
    check_lineage(joined, dataset)
    folder = outputs_dir(config) / PACKAGE
    draft = dataclasses.replace(joined, name=registered_name(config), run_key=recorder.run_key)
    info, val_accuracy = pack(folder, draft, networks, dataset, config, rule=rule)
    recorder.params({"ensemble.models": " ".join(models), "ensemble.rule": rule})
    recorder.tags({"best_val_accuracy": round(val_accuracy, 6)})
    record_model(recorder, folder, info, record_fingerprint(info))
    say(f"{info.name} ({rule}) of {', '.join(models)}: val accuracy {val_accuracy:.3f}")
    for model, weight in zip(models, info.combination.weights, strict=False):
        say(f"  {model}: weight {weight:.2f}")
    say(f"Package: {folder}")
    return info


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(ensemble)
