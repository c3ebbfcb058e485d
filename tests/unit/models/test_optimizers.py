import pytest
import torch

from medvision.models.network import freeze
from medvision.models.optimizers import build_optimizer


@pytest.mark.parametrize("name", ["adamw", "adam", "adamax", "sgd"])
def test_every_optimizer_lowers_the_loss(name, build, images):
    """Each optimizer of the config learns a handful of images."""
    network, batch, labels = build(), images(6), torch.arange(6) % 3
    optimizer = build_optimizer(network, name, lr=0.01, weight_decay=0.01)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(batch), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_norms_and_biases_do_not_decay(build):
    """Only weights of two dimensions and more decay; every parameter is in one group."""
    network = build("resnet18")
    decaying, resting = build_optimizer(network, "adamw", lr=0.1, weight_decay=0.3).param_groups
    assert (decaying["weight_decay"], resting["weight_decay"]) == (0.3, 0.0)
    assert {parameter.ndim for parameter in decaying["params"]} == {2, 4}
    assert {parameter.ndim for parameter in resting["params"]} == {1}
    assert len(decaying["params"]) + len(resting["params"]) == len(list(network.parameters()))


def test_frozen_parameters_are_left_out(build):
    """The optimizer knows only what may change."""
    network = build("resnet18")
    freeze(network, "head")
    groups = build_optimizer(network, "adamw", lr=0.1, weight_decay=0.3).param_groups
    assert [len(group["params"]) for group in groups] == [1, 1]
