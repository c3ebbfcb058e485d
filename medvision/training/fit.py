"""Train a network on a split dataset: choose the recipe, run Lightning, leave the best checkpoint on disk."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import logging
import re
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.multiprocessing import ProcessRaisedException

from medvision import errors
from medvision.config import Config, PerformanceConfig, Recipe, TrainingConfig
from medvision.data.datamodule import TrainingData
from medvision.data.loading import HeldOut, TrainEmbeddings, TrainImages
from medvision.data.transforms import Augmentation
from medvision.errors import CheckpointCorrupt, ConfigInvalid, MedvisionError
from medvision.models.catalog import CatalogEntry
from medvision.models.devices import choose_device
from medvision.models.network import Network, freeze
from medvision.models.optimizers import build_optimizer
from medvision.records import Recorder
from medvision.training.classifier import Classifier, class_weights, cycle_ends
from medvision.training.embeddings import embed_views
from medvision.training.launch import launched_rank
from medvision.training.snapshots import LAST, AtomicCheckpointIO, Snapshots, cycle_path, load_best

log = logging.getLogger(__name__)

# Each time the batch is halved. Three times: from 128 to 16.
_MAX_HALVINGS = 3
_TIPS = (
    ".*does not have many workers.*",
    ".*Checkpoint directory.*exists.*",
    ".*LeafSpec.*",
    ".*in eval mode at the start.*",
)


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images, uint8 (n, height, width, channels), their labels (n,), and the rows of train and val.

    ``pool``: rows of which several trainings take theirs, so that a frozen backbone is run on each of them once; None
    for a training of its own. ``split_fingerprint``: of the split that train and val are of, for the checkpoints.
    """

    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    val: np.ndarray
    n_classes: int
    fingerprint: str
    pool: np.ndarray | None = None
    split_fingerprint: str = ""


@dataclass(frozen=True)
class FitResult:
    """The best state of a training, and how it was reached.

    ``cycle_paths``: the files of what each cycle of the learning rate ended with; none of a training of one cycle.
    """

    best_epoch: int
    best_val_accuracy: float
    last_val_accuracy: float
    n_epochs: int
    batch_size: int
    cycle_paths: tuple[Path, ...] = ()


def resolve_recipe(config: TrainingConfig, entry: CatalogEntry) -> Recipe:
    """Fill what the settings leave open from the model's entry in the catalog."""
    open_settings = {"strategy": entry.strategy, "optimizer": entry.optimizer, "lr": entry.lr}
    return Recipe(**{**open_settings, **config.model_dump(exclude_none=True)})


def choose_precision(config: PerformanceConfig) -> tuple[str, str]:
    """Return Lightning's name of the precision to train in, and the reason."""
    if config.precision != "auto":
        name = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[config.precision]
        return name, "performance.precision says so"
    if config.accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true", "no CUDA device: mixed precision would save no memory and little time"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed", f"{torch.cuda.get_device_name()} computes in bfloat16, whose range needs no loss scaling"
    return "16-mixed", f"{torch.cuda.get_device_name()} has no bfloat16"


def choose_embedding_precision(config: PerformanceConfig) -> tuple[bool, str]:
    """Return whether to embed training images in bfloat16, and the reason."""
    if config.precision != "auto":
        return config.precision == "bf16", "performance.precision says so"
    if choose_device(config).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False), "what the GPU computes fastest"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return native, "the CPU has instructions for bfloat16" if native else "the CPU has no instructions for bfloat16"


def fit(
    network: Network, data: LabelledImages, config: Config, *, recorder: Recorder, folder: Path, resume: bool = False
) -> FitResult:
    """Train ``network`` in place and load its best state; ``folder`` receives the checkpoints.

    ``config.training`` must be resolved. With the strategy "head" the frozen backbone is run once for each view of
    each image, and only the head is trained. With ``resume`` the run goes on after the last whole epoch, and reaches
    the same weights as one that was not interrupted. With several cycles of the learning rate all epochs are run, and
    what each cycle ends with is kept beside the best state.

    Raises
    ------
    NonFiniteLoss: the loss became NaN or infinite.
    CheckpointCorrupt: ``resume`` found a damaged checkpoint.
    DiskFull: a checkpoint could not be written; the former one is intact.
    ConfigInvalid: the devices that were asked for are not here.
    """
    training = _resolved(config)
    freeze(network, training.strategy, training.unfreeze_stages)
    _clear(folder, resume=resume)
    datasets = _embedded(network, data, config) if training.strategy == "head" else _augmented(data, config)
    untrained = copy.deepcopy(network.state_dict())
    for halvings in range(_MAX_HALVINGS + 1):
        try:
            _run(network, datasets, data, config.model_copy(update={"training": training}), recorder, folder)
            break
        except torch.OutOfMemoryError:
            if halvings == _MAX_HALVINGS or training.batch_size == 1:
                raise _out_of_memory(training) from None
        training = _halve_batch(training)
        log.warning(
            "GPU memory ran out: batch %d, accumulate %d from here on", training.batch_size, training.accumulate
        )
        # Steps of a first epoch that was not finished must not be taken twice; later ones start from last.ckpt.
        network.load_state_dict(untrained)
        gc.collect()
        torch.cuda.empty_cache()
    best = load_best(folder)
    network.load_state_dict(best["model_state_dict"])
    history = _load_snapshot_state(folder)["history"]
    return FitResult(
        best_epoch=best["epoch"],
        best_val_accuracy=best["val_acc"],
        last_val_accuracy=history[-1]["val_accuracy"],
        n_epochs=len(history),
        batch_size=training.batch_size,
        cycle_paths=tuple(cycle_path(folder, number + 1) for number in range(len(_kept_cycles(training)))),
    )


def _kept_cycles(training: Recipe) -> tuple[int, ...]:
    """Return after how many epochs each cycle ends that leaves a member of an ensemble: several do, or none."""
    return cycle_ends(training.epochs, training.cycles) if training.cycles > 1 else ()


def _resolved(config: Config) -> Recipe:
    if not isinstance(config.training, Recipe):
        raise TypeError("fit expects config.training to be a Recipe, as resolve_recipe returns it.")
    return config.training


def _run(
    network: Network, datasets: tuple[Any, Any], data: LabelledImages, config: Config, recorder: Recorder, folder: Path
) -> None:
    if (folder / LAST).is_file() and _load_snapshot_state(folder)["stopped"]:
        log.info("The run had already stopped early: nothing is left to train")
        return
    training, performance = _resolved(config), config.performance
    # Lightning trains a network in the mode that it finds it in: after a failed attempt that may be evaluation.
    network.train()
    labels = torch.from_numpy(data.labels[data.train])
    weights = class_weights(labels, data.n_classes)
    model = network.head if training.strategy == "head" else network
    if performance.channels_last:
        network.to(memory_format=torch.channels_last)
    classifier = Classifier(
        model,
        build_optimizer=functools.partial(
            build_optimizer, network, training.optimizer, training.lr, training.weight_decay
        ),
        class_weights=weights if training.imbalance == "weights" else None,
        label_smoothing=training.label_smoothing,
        warmup_epochs=training.warmup_epochs,
        epochs=training.epochs,
        cycles=training.cycles,
        seed=training.seed,
        compiled=performance.compile,
    )
    loaders = TrainingData(
        *datasets,
        batch_size=training.batch_size,
        seed=training.seed,
        sample_weights=weights[labels].double().numpy() if training.imbalance == "sampler" else None,
        performance=performance,
    )
    snapshots = Snapshots(
        folder,
        network,
        recorder,
        monitor=training.monitor,
        save_every=training.save_every,
        described={**config.model_dump(mode="json"), "split_fingerprint": data.split_fingerprint},
        cycle_ends=_kept_cycles(training),
    )
    checkpoint = str(folder / LAST) if (folder / LAST).is_file() else None
    with _quiet_lightning():
        trainer = _build_trainer(training, performance, [*_stopping(training), snapshots])
        with _plain_errors(trainer):
            trainer.fit(classifier, loaders, ckpt_path=checkpoint, weights_only=True)


def _build_trainer(training: Recipe, performance: PerformanceConfig, callbacks: list[Callback]) -> pl.Trainer:
    precision, reason = choose_precision(performance)
    log.info("Precision %s: %s", precision, reason)
    several = performance.num_nodes > 1 or (isinstance(performance.devices, int) and performance.devices > 1)
    several = several or (
        performance.devices == "auto" and performance.accelerator != "cpu" and torch.cuda.device_count() > 1
    )
    launched = launched_rank() is not None
    try:
        return pl.Trainer(
            accelerator=performance.accelerator,
            devices=performance.devices,
            num_nodes=performance.num_nodes,
            # Spawned, not re-executed: the command that runs around the training must not run once a device.
            strategy="ddp" if launched else "ddp_spawn" if several else "auto",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=training.epochs,
            accumulate_grad_batches=training.accumulate,
            gradient_clip_val=training.gradient_clip or None,
            callbacks=[*callbacks, RichProgressBar(leave=False)],
            plugins=[AtomicCheckpointIO()],
            logger=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,
            # Trust before speed: where a deterministic kernel exists, it is used.
            deterministic="warn",
            benchmark=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigInvalid(
            f"performance.accelerator={performance.accelerator}, performance.devices={performance.devices} can't be "
            f"had here: {error}"
        ) from None


def _stopping(training: Recipe) -> list[Callback]:
    # Each cycle starts by leaving the minimum that the one before had found: its figures get worse for some epochs as
    # a matter of course, and a run that patience cut there would lack members.
    if training.cycles > 1:
        return []
    mode = "min" if training.monitor.endswith("loss") else "max"
    return [EarlyStopping(training.monitor, min_delta=training.min_delta, patience=training.patience, mode=mode)]


def _augmented(data: LabelledImages, config: Config) -> tuple[TrainImages, HeldOut]:
    augmentation = Augmentation(config.transform)
    train = TrainImages(data.images, data.train, data.labels[data.train], augmentation, config.training.seed)
    return train, HeldOut(data.images, data.val, data.labels[data.val])


def embed_plain(network: Network, data: LabelledImages, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings (n, features) of the images as they are, and their rows (n,): train and val, or the pool.

    In full precision, as evaluation and serving do: val figures must be those of the package.
    """
    rows = np.concatenate([data.train, data.val]) if data.pool is None else data.pool
    return _embed(network, data, config, rows, views=range(1), half=False)[0], rows


def place_rows(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return where each of ``rows`` stands in ``among``, which holds all of them once, in any order."""
    order = np.argsort(among)
    return order[np.searchsorted(among, rows, sorter=order)]


def _embedded(network: Network, data: LabelledImages, config: Config) -> tuple[TrainEmbeddings, HeldOut]:
    half, reason = choose_embedding_precision(config.performance)
    log.info("Embedding augmented images in %s: %s", "bfloat16" if half else "float32", reason)
    plain, rows = embed_plain(network, data, config)
    augmented = plain[:0, None]
    if config.training.views > 1:
        augmented = _embed(
            network,
            data,
            config,
            data.train if data.pool is None else data.pool,
            views=range(1, config.training.views),
            half=half,
        )
    train, val = place_rows(data.train, rows), place_rows(data.val, rows)
    return (
        TrainEmbeddings(plain, augmented, train, data.labels[data.train], config.training.seed),
        HeldOut(plain, val, data.labels[data.val]),
    )


def _embed(
    network: Network, data: LabelledImages, config: Config, rows: np.ndarray, *, views: range, half: bool
) -> np.ndarray:
    return embed_views(
        network,
        data.images,
        rows,
        views=views,
        half=half,
        augmentation=config.transform,
        seed=config.training.seed,
        device=choose_device(config.performance),
        folder=config.paths.state / "cache",
        pixels_fingerprint=data.fingerprint,
    )


def _clear(folder: Path, *, resume: bool) -> None:
    """Remove what a kill left half-written and, unless the run is resumed, what an earlier run left."""
    # best_model.pth stays until the first epoch replaces it.
    former = [] if resume else [folder / LAST, *folder.glob("epoch_*.pth"), *folder.glob("cycle_*.pth")]
    for stale in [*folder.glob(".*.tmp"), *former]:
        stale.unlink(missing_ok=True)


def _load_snapshot_state(folder: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(folder / LAST, map_location="cpu", weights_only=True)
        return checkpoint["callbacks"]["Snapshots"]
    # See load_best: a damaged file raises whatever its reader stumbles over.
    except Exception as error:
        raise CheckpointCorrupt(
            f"{folder / LAST} is damaged ({type(error).__name__}). Train from the start, without --resume."
        ) from None


def _halve_batch(training: Recipe) -> Recipe:
    return training.model_copy(update={"batch_size": training.batch_size // 2, "accumulate": training.accumulate * 2})


def _out_of_memory(training: Recipe) -> MedvisionError:
    return MedvisionError(
        f"GPU memory ran out even with batches of {training.batch_size}. Use a smaller model or image size, "
        "--set performance.precision=bf16, or another GPU."
    )


@contextlib.contextmanager
def _plain_errors(trainer: pl.Trainer) -> Iterator[None]:
    """Let errors and signals come through as if there were neither Lightning nor other processes."""
    try:
        yield
    except ProcessRaisedException as error:
        raise _unwrap(error) from None
    except SystemExit as error:
        # Lightning answers Ctrl-C with exit(1).
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if trainer.strategy.launcher is not None:
            # A signal ends this process alone: those of the other devices would train on.
            trainer.strategy.launcher.kill(signal.SIGKILL)  # type: ignore[attr-defined]


def _unwrap(error: ProcessRaisedException) -> Exception:
    """Return the error that ended a process of a device; only its text has come over."""
    found = re.findall(r"^(?:medvision\.errors|torch)\.(\w+): (.*)", str(error), re.MULTILINE)
    if not found:
        return error
    name, message = found[-1]
    kind = getattr(errors, name, torch.OutOfMemoryError)
    return kind(message)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips and advertisements off the screen while it runs; warnings of substance still show."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for tip in _TIPS:
                warnings.filterwarnings("ignore", tip)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
