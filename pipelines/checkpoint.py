"""Make a package of a checkpoint alone: of an epoch that training kept, or of a file that came from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.console import say
from pipelines.models import PACKAGE, outputs_dir
from pipelines.normalize import load_or_compute_normalization
from pipelines.scoring import pack
from pipelines.train import build_network_and_data, describe_network

if TYPE_CHECKING:
    from pathlib import Path

    from medvision.config import Config
    from medvision.tracking.recorder import Recorder
    from pipelines.dataset import SplitDataset


def pack_checkpoint(path: Path, config: Config, recorder: Recorder, dataset: SplitDataset) -> None:
    """Fit on val what a package needs beside the weights of a checkpoint, and save it as the settings' model.

    Raises CheckpointCorrupt: not a checkpoint of medvision's. FingerprintMismatch: trained on another split.
    """
    from medvision.training.snapshots import load_state

    state = load_state(path)
    recipe = _recipe(path, state, config, dataset)
    normalization = load_or_compute_normalization(recipe, dataset, recorder)
    network, _ = build_network_and_data(recipe, dataset, normalization)
    network.load_state_dict(state["model_state_dict"])
    info = describe_network(network, state["epoch"], state["val_acc"], config, dataset, recorder)
    info, val_accuracy = pack(outputs_dir(config) / PACKAGE, info, [network], dataset, config)
    say(f"{path}: epoch {state['epoch']} of {recipe.training.model}, val accuracy {val_accuracy:.3f} as packed")


def _recipe(path: Path, state: dict[str, Any], config: Config, dataset: SplitDataset) -> Config:
    """Return the settings at hand with the transform and the training of the checkpoint."""
    from medvision.config import Recipe, TransformConfig
    from medvision.errors import CheckpointCorrupt, FingerprintMismatch

    try:
        described = state["config"]
        split = described["split_fingerprint"]
        transform = TransformConfig.model_validate(described["transform"])
        # The weights are in the checkpoint: those that its training started from may not be here.
        training = Recipe.model_validate({**described["training"], "pretrained": False})
    except (KeyError, TypeError, ValueError):
        raise CheckpointCorrupt(
            f"{path} is no checkpoint of this medvision's training. Expected best_model.pth or epoch_NNN.pth of a "
            "checkpoints folder."
        ) from None
    if split != dataset.split.fingerprint:
        raise FingerprintMismatch(
            f"{path} was trained on split {split[:12]}, but the split at hand is {dataset.split.fingerprint[:12]}: its "
            "test images may have been trained on. Evaluate with the settings of the training, or train again."
        )
    return config.model_copy(update={"transform": transform, "training": training})
