"""Compute mean and standard deviation of the training pixels, save them, or verify those that are saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import say
from pipelines.dataset import SplitDataset, prepare_dataset, record_dataset, say_dataset
from pipelines.options import ConfigFile, Dataset, DatasetPath, Grayscale, OnLeak, PatientPattern, Set, configure

if TYPE_CHECKING:
    from medvision import records
    from medvision.config import Config
    from medvision.records import Normalization
    from medvision.tracking.recorder import Recorder

Mode = Annotated[str, typer.Option(help="display: print only; save: write the files; verify: check the saved ones.")]


def normalize(
    mode: Mode = "save",
    dataset_path: DatasetPath = None,
    patient_pattern: PatientPattern = None,
    dataset: Dataset = None,
    on_leak: OnLeak = None,
    grayscale: Grayscale = None,
    config: ConfigFile = None,
    set_: Set = None,
) -> Normalization:
    """Compute the mean and standard deviation of the training pixels."""
    from medvision.errors import ConfigInvalid
    from medvision.tracking.recorder import open_run

    if mode not in {"display", "save", "verify"}:
        raise ConfigInvalid(f"--mode expects display, save or verify; found {mode!r}.")
    settings = configure(
        config, dataset, set_,
        dataset_path=dataset_path, patient_pattern=patient_pattern, on_leak=on_leak, grayscale=grayscale,
    )  # fmt: skip
    with open_run(settings, step="normalize", name=f"normalize {settings.dataset_name}") as recorder:
        prepared = prepare_dataset(settings)
        say_dataset(prepared)
        return run_normalize(settings, recorder, prepared, mode=mode)


def run_normalize(config: Config, recorder: Recorder, dataset: SplitDataset, *, mode: str = "save") -> Normalization:
    """Do the step inside a run; ``verify`` raises FingerprintMismatch when the split has changed since."""
    from medvision.data.normalization import load_normalization

    record_dataset(dataset, config, recorder, context="train")
    if mode == "verify":
        statistics = load_normalization(config.dataset_dir, dataset.split)
        say(f"Normalization is that of the present split, {dataset.split.fingerprint[:12]}.")
    else:
        statistics = _compute(config, dataset, recorder, save=mode == "save")
    say(
        f"  mean {_rounded(statistics.mean)}  std {_rounded(statistics.std)}  ({statistics.n_images:,} training images)"
    )
    return statistics


def load_or_compute_normalization(config: Config, dataset: SplitDataset, recorder: records.Recorder) -> Normalization:
    """Return the saved statistics, computed first where there are none; those of another split are refused."""
    from medvision.data.normalization import STATS_FILE, load_normalization

    saved = config.dataset_dir / STATS_FILE
    if not saved.is_file():
        return _compute(config, dataset, recorder, save=True)
    statistics = load_normalization(config.dataset_dir, dataset.split)
    if len(statistics.mean) != _channels(config):
        return _compute(config, dataset, recorder, save=True)
    say(f"Normalization: mean {_rounded(statistics.mean)} std {_rounded(statistics.std)}, saved in {saved}")
    return statistics


def _compute(config: Config, dataset: SplitDataset, recorder: records.Recorder, *, save: bool) -> Normalization:
    from medvision.data.normalization import CONSTANTS_FILE, STATS_FILE, compute_normalization, save_normalization

    statistics = compute_normalization(
        dataset.manifest, dataset.split, channels=_channels(config), workers=config.performance.workers
    )
    if save:
        save_normalization(statistics, config.dataset_dir)
        for name in (STATS_FILE, CONSTANTS_FILE):
            recorder.artifact(config.dataset_dir / name, folder="data")
        say(f"Normalization saved in {config.dataset_dir}: {STATS_FILE}, {CONSTANTS_FILE}")
    return statistics


def _channels(config: Config) -> int:
    return 1 if config.transform.grayscale else 3


def _rounded(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.4f}" for value in values) + "]"


if __name__ == "__main__":
    from medvision.cli import main_step

    main_step(normalize)
