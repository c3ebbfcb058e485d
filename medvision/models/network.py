"""A network: normalization, backbone and head in one module, from the pixels of a file to logits.

Normalization happens inside, so that training, evaluation and serving can't differ in it.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import group_parameters
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import Tensor, nn

from medvision.config import Strategy
from medvision.errors import ConfigInvalid
from medvision.models.catalog import OWN, Architecture
from medvision.models.heads import build_head
from medvision.models.hub import create_from_hub
from medvision.models.simple_cnn import SimpleCNN
from medvision.models.weights import find_weights, load_backbone_weights
from medvision.records import Preprocessing


class Network(nn.Module):
    """A classifier of uint8 images; ``architecture`` and ``preprocessing`` say how it was built."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, architecture: Architecture, preprocessing: Preprocessing):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.architecture = architecture
        self.preprocessing = preprocessing
        # Not among the weights: ``preprocessing`` is the one place that says them.
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of images (B, C, H, W), uint8 in [0, 255]."""
        return self.head(self.embed(images))

    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, n_features) of images (B, C, H, W), uint8 in [0, 255]."""
        return self.backbone(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) as (image / 255 - mean) / std; a gray image is repeated for a colour network."""
        if images.shape[1] == 1:
            images = images.expand(-1, self.mean.shape[1], -1, -1)
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def train(self, mode: bool = True) -> "Network":
        """Switch to training, except for the frozen parts: their dropout stays off and their statistics stay put."""
        super().train(mode)
        if mode:
            for module in self.backbone.modules():
                if _is_frozen(module):
                    module.eval()
        return self


def build_network(
    architecture: Architecture,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    pretrained: bool | Path,
    window: str = "",
) -> Network:
    """Build a network whose head is untrained.

    Parameters
    ----------
    mean, std: of each channel over the train split, in [0, 1].
    pretrained: True for the weights of timm's hub (a model of medvision's own has none and starts from scratch),
        a file for its backbone weights, or a folder that has one of its name, False for random ones.
    window: what the CT values of its images are seen through, "" for the files' own.

    Raises
    ------
    ConfigInvalid: the model can't take this image size, or mean and std are not one value a channel.
    WeightsUnavailable: the pretrained weights could not be had.
    """
    if not len(mean) == len(std) == architecture.channels:
        raise ConfigInvalid(
            f"Expected mean and std of {architecture.channels} channels, found {len(mean)} and {len(std)}."
        )
    backbone = _create_backbone(architecture, pretrained)
    head = build_head(architecture.head, _count_features(backbone, architecture), architecture.n_classes)
    preprocessing = Preprocessing(architecture.image_size, architecture.channels, tuple(mean), tuple(std), window)
    return Network(backbone, head, architecture, preprocessing).train()


def freeze(network: Network, strategy: Strategy, unfreeze_stages: int = 1) -> None:
    """Choose what training may change: the head always; of the backbone nothing, its last stages, or all of it.

    Raises ConfigInvalid if the backbone has fewer stages.
    """
    network.backbone.requires_grad_(strategy == "full")
    network.head.requires_grad_(True)
    if strategy == "partial":
        stages = _stages(network.backbone)
        if not 1 <= unfreeze_stages <= len(stages):
            raise ConfigInvalid(
                f"training.unfreeze_stages: {network.architecture.model} has {len(stages)} stages, found "
                f"{unfreeze_stages}. Give a number from 1 to {len(stages)}, or --strategy full."
            )
        for parameter in (parameter for stage in stages[-unfreeze_stages:] for parameter in stage):
            parameter.requires_grad_(True)
    network.train(network.training)


def _create_backbone(architecture: Architecture, pretrained: bool | Path) -> nn.Module:
    name = architecture.timm_name
    if name == OWN:
        backbone: nn.Module = SimpleCNN(architecture.channels)
    else:
        options: dict[str, Any] = {"num_classes": 0, "in_chans": architecture.channels}
        config = timm.get_pretrained_cfg(name)
        if config and config.fixed_input_size:
            options["img_size"] = architecture.image_size
        if pretrained is True:
            return create_from_hub(name, **options)
        backbone = timm.create_model(name, pretrained=False, **options)
    # A folder of weights has none of medvision's own models, which start from scratch.
    if isinstance(pretrained, Path) and not (name == OWN and pretrained.is_dir()):
        file = find_weights(pretrained, architecture.model, name)
        load_backbone_weights(backbone, file, model=architecture.model)
    return backbone


def _count_features(backbone: nn.Module, architecture: Architecture) -> int:
    """Run the backbone without data, which takes no time and refuses a size that it can't take."""
    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    size = architecture.image_size
    images = torch.empty(1, architecture.channels, size, size, device="meta")
    try:
        embeddings = torch.func.functional_call(backbone.eval(), shapes, (images,))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigInvalid(f"{architecture.model} can't take images of {size} x {size} pixels: {error}.") from None
    if embeddings.ndim != 2:
        raise ConfigInvalid(f"{architecture.model} gives no embedding of an image. Choose a classification model.")
    return embeddings.shape[1]


def _stages(backbone: Any) -> list[list[nn.Parameter]]:
    """Return the parameters of each stage, first to last; what comes after the last stage belongs to it."""
    matcher = backbone.group_matcher(coarse=True)
    if isinstance(matcher, dict):
        matcher = {**matcher, "rest": [(".*", MATCH_PREV_GROUP)]}
    return list(group_parameters(backbone, matcher, return_values=True).values())


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
