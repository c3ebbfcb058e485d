"""Train a model on the train split, choose its best epoch on val, and pack it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset, say_dataset
from pipelines.models import PACKAGE, outputs_dir, registered_name
from pipelines.normalize import load_or_compute_normalization
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
    Pretrained,
    Set,
    Strategy,
    configure,
)
from pipelines.power import say_unattainable
from pipelines.scoring import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvision.config import Config
    from medvision.models.network import Network
    from medvision.records import Normalization, PackageInfo
    from medvision.tracking.recorder import Recorder
    from medvision.training.fit import FitResult, LabelledImages

Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last whole epoch of an interrupted run.")]
RUN_FILE = "run.json"


def train(
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
    resume: Resume = False,
    config: ConfigFile = None,
    set_: Set = None,
) -> PackageInfo | None:
    """Train a model and pack its best epoch."""
    from medvision.tracking.recorder import open_run
    from medvision.training.launch import launched_rank

    settings = configure(
        config, dataset, set_,
        model=model, epochs=epochs, dataset_path=dataset_path, patient_pattern=patient_pattern, pretrained=pretrained,
        strategy=strategy, batch_size=batch_size, lr=lr, image_size=image_size, grayscale=grayscale, on_leak=on_leak,
    )  # fmt: skip
    if launched_rank():
        # Of the processes that a launcher started, the first records, scores and packs; the others lend their devices.
        _train_along(settings, resume=resume)
        return None
    run_key = _interrupted_run(outputs_dir(settings)) if resume else None
    with open_run(settings, step="train", name=f"train {settings.training.model}", run_key=run_key) as recorder:
        prepared = prepare_dataset(settings)
        say_dataset(prepared)
        return run_train(settings, recorder, prepared, resume=resume)


def run_train(
    config: Config,
    recorder: Recorder,
    dataset: SplitDataset,
    *,
    resume: bool = False,
    policies: Path | None = None,
) -> PackageInfo:
    """Do the step inside a run."""
    from medvision.evaluation.decisions import check_critical
    from medvision.training.fit import fit

    config = resolve(config)
    folder = outputs_dir(config)
    check_critical(config.evaluation, dataset.manifest.classes)
    say_unattainable(dataset, config, policies=policies)
    record_dataset(dataset, config, recorder, context="train")
    normalization = load_or_compute_normalization(config, dataset, recorder)
    _claim_folder(folder, config, dataset, recorder, resume=resume)
    recorder.params(config.model_dump(mode="json", exclude={"paths": True, "dataset": {"labels"}}))
    network, data = build_network_and_data(config, dataset, normalization)
    say(f"Training {config.training.model} ({config.training.strategy}) for up to {config.training.epochs} epochs")
    result = fit(network, data, config, recorder=recorder, folder=folder, resume=resume)
    info, val_accuracy = _pack(network, result, config, dataset, recorder)
    if config.tracking.tensorboard:
        _draw_graph(network, data, config, recorder)
    _record_result(result, info, val_accuracy, config, recorder)
    say(f"Best epoch {result.best_epoch} of {result.n_epochs}: val accuracy {result.best_val_accuracy:.3f}")
    say(f"Package: {folder / PACKAGE}")
    return info


def load_images(config: Config, dataset: SplitDataset, image_size: int) -> LabelledImages:
    """Open the cache of decoded images, with labels and rows."""
    from medvision.data.cache import open_cache
    from medvision.training.fit import LabelledImages

    manifest, split = dataset.manifest, dataset.split
    images = open_cache(
        manifest,
        image_size=image_size,
        channels=1 if config.transform.grayscale else 3,
        folder=config.paths.state / "cache",
        workers=config.performance.workers,
    )
    return LabelledImages(
        images=images,
        labels=manifest.rows.label.to_numpy(),
        train=split.indices("train"),
        val=split.indices("val"),
        n_classes=len(manifest.classes),
        fingerprint=f"{manifest.fingerprint}-{images.shape}",
        split_fingerprint=split.fingerprint,
    )


def _train_along(config: Config, *, resume: bool) -> None:
    """Train as the first process does, and leave nothing behind."""
    from medvision.records import Silence
    from medvision.training.fit import fit

    config = resolve(config)
    dataset = prepare_dataset(config)
    network, data = build_network_and_data(config, dataset, load_or_compute_normalization(config, dataset, Silence()))
    fit(network, data, config, recorder=Silence(), folder=outputs_dir(config), resume=resume)


def resolve(config: Config) -> Config:
    """Fill what the settings leave open from the model's entry in the catalog."""
    from medvision.models.catalog import find
    from medvision.training.fit import resolve_recipe

    recipe = resolve_recipe(config.training, find(config.training.model))
    return config.model_copy(update={"training": recipe})


def build_network_and_data(
    config: Config, dataset: SplitDataset, normalization: Normalization
) -> tuple[Network, LabelledImages]:
    """Build the untrained network, its head from the seed, and open the images."""
    import torch

    from medvision.models.catalog import find
    from medvision.models.network import build_network

    architecture = find(config.training.model).architecture(
        n_classes=len(dataset.manifest.classes),
        channels=1 if config.transform.grayscale else 3,
        image_size=config.transform.image_size,
    )
    data = load_images(config, dataset, architecture.image_size)
    # The head starts from the seed, whatever ran before in this process.
    torch.manual_seed(config.training.seed)
    network = build_network(
        architecture,
        mean=normalization.mean,
        std=normalization.std,
        pretrained=config.training.pretrained,
        window=config.dataset.window,
    )
    return network, data


def _pack(
    network: Network, result: FitResult, config: Config, dataset: SplitDataset, recorder: Recorder
) -> tuple[PackageInfo, float]:
    """Pack the network, or an ensemble of what its cycles ended with; return the package and its val accuracy."""
    folder = outputs_dir(config) / PACKAGE
    if not result.cycle_paths:
        info = describe_network(network, result.best_epoch, result.best_val_accuracy, config, dataset, recorder)
        return pack(folder, info, [network], dataset, config)
    joined, networks = _join_cycles(network, result.cycle_paths, config, dataset, recorder)
    info, val_accuracy = pack(folder, joined, networks, dataset, config)
    say(f"Ensemble of the ends of {len(info.members)} cycles: val accuracy {val_accuracy:.3f}")
    for number, (member, weight) in enumerate(zip(info.members, info.combination.weights, strict=True), start=1):
        say(f"  cycle {number}: val accuracy {member.best_val_accuracy:.3f}, weight {weight:.2f}")
    return info, val_accuracy


def _join_cycles(
    network: Network, paths: Sequence[Path], config: Config, dataset: SplitDataset, recorder: Recorder
) -> tuple[PackageInfo, list[Network]]:
    """Return an ensemble of copies of the network with the weights of each file, before anything is fitted on val."""
    import copy

    from medvision.training.ensembling import join_packages
    from medvision.training.snapshots import load_state

    infos, networks = [], []
    for state in map(load_state, paths):
        member = copy.deepcopy(network)
        member.load_state_dict(state["model_state_dict"])
        networks.append(member)
        infos.append(describe_network(member, state["epoch"], state["val_acc"], config, dataset, recorder))
    return join_packages(infos), networks


def describe_network(
    network: Network, epoch: int, val_accuracy: float, config: Config, dataset: SplitDataset, recorder: Recorder
) -> PackageInfo:
    """Return what there is to say of a trained network, before anything is fitted on val."""
    from medvision.models.package import describe

    return describe(
        network,
        name=registered_name(config),
        dataset=config.dataset_name,
        classes=dataset.manifest.classes,
        manifest_fingerprint=dataset.manifest.fingerprint,
        split_fingerprint=dataset.split.fingerprint,
        run_key=recorder.run_key,
        best_epoch=epoch,
        best_val_accuracy=val_accuracy,
    )


def _draw_graph(network: Network, data: LabelledImages, config: Config, recorder: Recorder) -> None:
    from medvision.data.loading import to_tensor
    from medvision.tracking.journal import Journal
    from medvision.tracking.tensorboard_sink import run_folder, write_graph

    folder = run_folder(Journal(recorder.folder), config.paths.tensorboard)
    # A copy: torch warns of arrays that can't be written to, as the cache can't.
    write_graph(folder, network.cpu().eval(), to_tensor(data.images[:1].copy()))


def _record_result(
    result: FitResult, info: PackageInfo, packed_accuracy: float, config: Config, recorder: Recorder
) -> None:
    from medvision.models.package import INFO, WEIGHTS, package_digest
    from medvision.registry.logged_model import record_model
    from medvision.training.snapshots import BEST, HISTORY

    folder = outputs_dir(config)
    recorder.tags(
        {
            "best_val_accuracy": round(result.best_val_accuracy, 6),
            "best_model_epoch": result.best_epoch,
            "best_model_path": f"best_model/{BEST}",
            "final_best_val_accuracy": round(packed_accuracy, 6),
        }
    )
    recorder.artifact(folder / BEST, folder="best_model")
    recorder.artifact(folder / HISTORY)
    for name in (INFO, WEIGHTS):
        recorder.artifact(folder / PACKAGE / name, folder="final_best_model")
    record_model(recorder, folder / PACKAGE, info, package_digest(folder / PACKAGE))


def _claim_folder(folder: Path, config: Config, dataset: SplitDataset, recorder: Recorder, *, resume: bool) -> None:
    """Write down whose checkpoints these are; a run may only be resumed on the same data with the same recipe."""
    from medvision.errors import FingerprintMismatch
    from medvision.files import fingerprint, read_json, write_json

    recipe = config.model_dump(mode="json", include={"transform", "training"})
    mine = fingerprint([dataset.split.fingerprint, recipe])
    if resume and read_json(folder / RUN_FILE)["fingerprint"] != mine:
        raise FingerprintMismatch(
            f"The interrupted run in {folder} had other data or other settings. Resume it with the same command plus "
            "--resume, or train from the start."
        )
    write_json(folder / RUN_FILE, {"run_key": recorder.run_key, "fingerprint": mine})


def _interrupted_run(folder: Path) -> str:
    from medvision.errors import ConfigInvalid
    from medvision.files import read_json

    if not (folder / RUN_FILE).is_file():
        raise ConfigInvalid(f"There is no run to resume in {folder}. Train without --resume first.")
    return str(read_json(folder / RUN_FILE)["run_key"])


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(train)
