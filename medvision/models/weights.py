"""Pretrained weights from a file, loaded completely or not at all.

A weights file is data from outside: it is read as plain tensors and never run. Nothing is left at random values in
silence: each key of the backbone must be in the file, with the right shape, and the file may hold nothing else but a
classifier.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from medvision.errors import WeightsUnavailable

_SUFFIXES = {".pth", ".pt", ".safetensors"}
_WRAPPERS = ("state_dict", "model_state_dict")
_N_NAMED = 3


def load_backbone_weights(backbone: nn.Module, path: Path, *, model: str) -> None:
    """Load the weights of ``model``'s backbone from a .pth, .pt or .safetensors file.

    The file holds a state dict, plain or under "state_dict" or "model_state_dict"; the prefixes "module." and
    "backbone." and the keys of a classifier are left out. Three input channels are folded into the one of a grayscale
    backbone, and position tables are resized.

    Raises WeightsUnavailable: file missing or damaged, more than tensors in it, weights of another architecture.
    """
    expected = backbone.state_dict()
    tensors = _without_classifier(_strip_prefixes(_read_tensors(path)), backbone)
    _refuse(_compare_names(tensors, backbone), path, model)
    tensors = _fit(tensors, backbone)
    _refuse(_compare_shapes(tensors, expected), path, model)
    backbone.load_state_dict({**expected, **{name: tensors[name] for name in tensors if name in expected}})


def find_weights(path: Path, *names: str) -> Path:
    """Return the weights file that ``path`` is, or that is named after a model in the folder that it is.

    ``names`` are what the model is called, best first: NAME.pth is found, as is NAME_imagenet.safetensors. Raises
    WeightsUnavailable if the folder has no such file.
    """
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    for name in names:
        found = [file for file in files if file.stem == name]
        # resnet50_gn is another model than resnet50, and resnet50_imagenet its weights.
        for suffix in ("_imagenet", "_", "-", "."):
            found += [file for file in files if file.stem.startswith(f"{name}{suffix}")]
        if found:
            return found[0]
    present = ", ".join(file.name for file in files) or "no weights at all"
    raise WeightsUnavailable(
        f"{path} holds no weights of {names[0]}: expected {names[-1]}.pth or .safetensors, found {present}. "
        "Put them there, give --pretrained a file, or false."
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsUnavailable(
            f"The weights file {path} does not exist. Give --pretrained an existing file, or false."
        )
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception:  # any bytes may be in the file, so that any error may come; torch's text advises the unsafe way
        raise WeightsUnavailable(
            f"{path} is damaged, or holds more than plain tensors, which could run code and is not loaded. Give a "
            ".safetensors file, or a .pth that was saved with torch.save(model.state_dict(), PATH)."
        ) from None
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsUnavailable(
            f"{path} is no state dict: expected names and tensors, plain or under one of {', '.join(_WRAPPERS)}."
        )
    return dict(content)


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module.").removeprefix("backbone."): tensor for name, tensor in tensors.items()}


def _without_classifier(tensors: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    # "head" is medvision's own name for it, in packages and in best_model.pth.
    prefixes = tuple(f"{name}." for name in (*_names(backbone, "classifier"), "head"))
    known = backbone.state_dict()
    return {name: tensor for name, tensor in tensors.items() if name in known or not name.startswith(prefixes)}


def _names(backbone: Any, key: str) -> tuple[str, ...]:
    value = backbone.default_cfg.get(key)
    return (value,) if isinstance(value, str) else tuple(value or ())


def _compare_names(tensors: dict[str, Tensor], backbone: nn.Module) -> list[str]:
    expected = backbone.state_dict()
    # Files older than torch 0.4.1 lack this counter, and no network here uses it.
    required = [name for name in expected if not name.endswith(".num_batches_tracked")]
    missing = [name for name in required if name not in tensors]
    # Tables that timm computes anew stand in older files.
    known = expected.keys() | dict(backbone.named_buffers()).keys()
    unknown = [name for name in tensors if name not in known]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(required)} keys are missing ({_first(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} keys are unknown ({_first(unknown)})")
    return problems


def _compare_shapes(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    wrong = [
        f"{name}: expected {tuple(expected[name].shape)}, found {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    return [f"{len(wrong)} of {len(expected)} keys have another shape ({_first(wrong)})"] if wrong else []


def _refuse(problems: list[str], path: Path, model: str) -> None:
    if problems:
        raise WeightsUnavailable(
            f"{path} does not hold the weights of {model}: {'; '.join(problems)}. "
            f"Give --pretrained a file that was saved from this architecture, or false."
        )


def _fit(tensors: dict[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """Resize what depends on the image size, and fold colour into gray where the backbone is gray."""
    resize = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if resize and backbone.default_cfg.get("fixed_input_size"):
        tensors = resize(tensors, backbone)
    for name in _names(backbone, "first_conv"):
        weight = tensors[f"{name}.weight"]
        if weight.shape[1] == 3 and backbone.get_submodule(name).in_channels == 1:
            tensors[f"{name}.weight"] = adapt_input_conv(1, weight)
    return tensors


def _first(names: list[str]) -> str:
    return ", ".join(names[:_N_NAMED]) + (", ..." if len(names) > _N_NAMED else "")
