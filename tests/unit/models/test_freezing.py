import copy

import pytest
import torch

from medvision.errors import ConfigInvalid
from medvision.models.network import freeze
from medvision.models.optimizers import build_optimizer


def train_one_step(network, images):
    optimizer = build_optimizer(network.train(), "adamw", lr=0.1, weight_decay=0.1)
    logits = network(images(8))
    torch.nn.functional.cross_entropy(logits, torch.arange(8) % logits.shape[1]).backward()
    optimizer.step()


def changed(network, before):
    after = network.state_dict()
    return {name for name in after if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize("name", ["own", "resnet18", "mobilenetv2_100", "vit_tiny_patch16_224"])
def test_a_frozen_backbone_does_not_move(name, build, images):
    """With strategy head a real step leaves the backbone bit for bit as it was, statistics included."""
    network = build(name)
    freeze(network, "head")
    before = copy.deepcopy(network.state_dict())
    train_one_step(network, images)
    assert changed(network, before) == {"head.weight", "head.bias"}


def test_a_frozen_backbone_embeds_the_same_in_training(build, images):
    """Dropout and stochastic depth of a frozen backbone stay off, so that its embeddings can be computed once."""
    network, batch = build("swin_tiny_patch4_window7_224"), images()
    freeze(network, "head")
    assert torch.equal(network.train().embed(batch), network.eval().embed(batch))


@pytest.mark.parametrize(
    ("name", "n", "trained"),
    [
        ("own", 1, ("stages.3.",)),
        ("own", 2, ("stages.2.", "stages.3.")),
        ("resnet18", 1, ("layer4.",)),
        ("resnet18", 2, ("layer3.", "layer4.")),
        ("mobilenetv2_100", 1, ("blocks.6.", "conv_head.", "bn2.")),
        ("vit_tiny_patch16_224", 2, ("blocks.10.", "blocks.11.", "norm.")),
        ("swin_tiny_patch4_window7_224", 1, ("layers.3.", "norm.")),
    ],
)
def test_partial_trains_exactly_the_last_stages(name, n, trained, build, images):
    """With strategy partial a real step moves the last n stages and the head, and nothing else."""
    network = build(name)
    freeze(network, "partial", n)
    before = copy.deepcopy(network.state_dict())
    train_one_step(network, images)
    prefixes = tuple(f"backbone.{prefix}" for prefix in trained)
    moved = changed(network, before)
    assert all(name.startswith((*prefixes, "head.")) for name in moved)
    assert all(any(name.startswith(prefix) for name in moved) for prefix in (*prefixes, "head."))


def test_full_trains_everything(build, images):
    """With strategy full every stage moves, also where the backbone was frozen before."""
    network = build("resnet18")
    freeze(network, "head")
    freeze(network, "full")
    before = copy.deepcopy(network.state_dict())
    train_one_step(network, images)
    assert changed(network, before) == set(before)


def test_more_stages_than_there_are_is_refused(build):
    """A number of stages that the backbone does not have is refused, with the number that it has."""
    with pytest.raises(ConfigInvalid, match="has 5 stages, found 6"):
        freeze(build("resnet18"), "partial", 6)


def test_evaluation_mode_reaches_everything(build):
    """eval() switches the whole network, and freezing an evaluated network does not wake it."""
    network = build("resnet18").eval()
    freeze(network, "partial", 1)
    assert not any(module.training for module in network.modules())
