"""Optimizers over what a network may change."""

from torch import nn, optim

from medvision.config import Optimizer


def build_optimizer(network: nn.Module, name: Optimizer, lr: float, weight_decay: float) -> optim.Optimizer:
    """Return an optimizer of the trainable parameters; norms and biases (one dimension) do not decay."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    kinds = {"adamw": optim.AdamW, "adam": optim.Adam, "adamax": optim.Adamax}
    return kinds[name](groups, lr=lr)
