"""A small convolutional backbone that is trained from scratch, for images of 16 pixels and more.

It has the few attributes of a timm backbone that weights, freezing and heat maps ask for.
"""

from typing import Any

import torch
from torch import nn

_WIDTHS = (32, 64, 128, 256)


class SimpleCNN(nn.Module):
    """Four stages of two convolutions, halving the side between them, then the mean over all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = (channels, *_WIDTHS)
        self.stages = nn.ModuleList(_stage(*pair) for pair in zip(inputs, _WIDTHS, strict=False))
        self.default_cfg: dict[str, Any] = {"first_conv": "stages.0.0", "classifier": ()}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (B, 256) of images (B, channels, H, W)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the maps of the last stage, (B, 256, H / 8, W / 8), as timm's models do."""
        features = self.stages[0](images)
        for stage in self.stages[1:]:
            features = stage(nn.functional.max_pool2d(features, 2))
        return features

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of what ``forward_features`` gives."""
        return features.mean(dim=(2, 3))

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the patterns that put each parameter into its stage, as timm's models do."""
        return {"blocks": r"^stages\.(\d+)"}


def _stage(n_inputs: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(n_inputs, n_outputs), *_convolution(n_outputs, n_outputs))


def _convolution(n_inputs: int, n_outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(n_inputs, n_outputs, 3, padding=1, bias=False), nn.BatchNorm2d(n_outputs), nn.ReLU(inplace=True)]
