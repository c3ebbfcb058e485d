"""Which weights a training started from, and under which licence they were published, as far as that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from medvision.models.catalog import OWN

UNKNOWN = "unknown"


@dataclass(frozen=True)
class StartingWeights:
    """What the weights of a network were at its start: ``source`` says whose they were, ``licence`` may be unknown."""

    model: str
    source: str
    licence: str


def describe_starting_weights(model: str, timm_name: str, pretrained: str | None) -> StartingWeights:
    """Tell where a network's starting weights came from.

    ``pretrained`` is the setting of its training, as text: True, False, or a path; None if it is not known.
    """
    if timm_name == OWN and pretrained in (None, "True", "False"):
        return StartingWeights(model, "none: trained from random weights", "none needed")
    if pretrained is None:
        return StartingWeights(model, UNKNOWN, UNKNOWN)
    if pretrained == "False":
        return StartingWeights(model, "none: trained from random weights", "none needed")
    if pretrained != "True":
        # Only the name: a path tells of the machine and its accounts.
        return StartingWeights(model, f"file or folder {PurePath(pretrained).name}", UNKNOWN)
    return _of_hub(model, timm_name)


def _of_hub(model: str, timm_name: str) -> StartingWeights:
    import timm

    config: Any = timm.get_pretrained_cfg(timm_name)
    if config is None:
        return StartingWeights(model, f"timm, {timm_name}", UNKNOWN)
    name = f"{timm_name}.{config.tag}" if config.tag else timm_name
    return StartingWeights(model, f"timm, {name}", config.license or UNKNOWN)
