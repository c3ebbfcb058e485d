import copy
import pickle

import numpy as np
import pytest
import torch

from medvision.errors import ConfigInvalid
from medvision.models.catalog import Architecture, find, load_catalog
from medvision.models.network import build_network


@pytest.mark.parametrize("name", load_catalog())
def test_every_model_of_the_catalog_gives_logits(name, images):
    """Each entry builds at its own image size and gives one finite logit a class."""
    architecture = find(name).architecture(n_classes=2, channels=3)
    network = build_network(architecture, mean=(0.5,) * 3, std=(0.2,) * 3, pretrained=False).eval()
    with torch.inference_mode():
        logits = network(images(1, size=architecture.image_size))
    assert logits.shape == (1, 2)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", ["own", "mobilenetv2_100", "resnet18"])
def test_a_grayscale_network_takes_one_channel(name, build, images):
    """A network of one channel gives logits for gray images."""
    network = build(name, channels=1).eval()
    assert network(images(2, channels=1)).shape == (2, 3)


def test_a_colour_network_takes_gray_images_as_equal_channels(build, images):
    """A gray image gives the same logits as the same image with its channel repeated."""
    network = build("mobilenetv2_100").eval()
    gray = images(2, channels=1)
    torch.testing.assert_close(network(gray), network(gray.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-5)


def test_normalization_equals_numpy(images):
    """The normalization inside the network is that of numpy in float64, to 1e-6."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = build_network(Architecture("net", "own", "linear", 2, 3, 32), mean=mean, std=std, pretrained=False)
    pixels = images(8)
    expected = (pixels.numpy().astype(np.float64) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(network.normalize(pixels).numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [16, 17, 28, 64])
def test_simple_cnn_takes_any_small_size(size, build, images):
    """simple_cnn works from 16 pixels up, odd sizes too."""
    assert build("own", image_size=size).eval()(images(2, size=size)).shape == (2, 3)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_takes_another_image_size(name, build, images):
    """A transformer, whose size is fixed when it is built, is built for the size that was asked for."""
    assert build(name, image_size=64).eval()(images(2, size=64)).shape == (2, 3)


def test_an_image_size_that_a_model_can_not_take_is_refused():
    """A size too small for a network's strides is refused when it is built, not in the first batch."""
    architecture = find("vgg16").architecture(n_classes=2, channels=1, image_size=16)
    with pytest.raises(ConfigInvalid, match="vgg16 can't take images of 16 x 16"):
        build_network(architecture, mean=(0.5,), std=(0.2,), pretrained=False)


def test_statistics_of_other_channels_are_refused():
    """Mean and std of three channels are refused by a network of one."""
    with pytest.raises(ConfigInvalid, match="1 channels, found 3"):
        build_network(Architecture("n", "own", "linear", 2, 1, 32), mean=(0.5,) * 3, std=(0.2,) * 3, pretrained=False)


def test_the_medical_head_is_as_described(build):
    """The medical head is Dropout .3, Linear n-128, ReLU, Dropout .25, Linear 128-classes."""
    head = build("efficientnet_b0", head="medical").head
    assert [type(layer).__name__ for layer in head] == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert (head[0].p, head[1].in_features, head[1].out_features, head[3].p, head[4].in_features) == (
        *(0.3, 1280, 128, 0.25, 128),
    )


def test_logits_are_the_head_of_the_embedding(build, images):
    """A head that is trained on embeddings is right for the whole network."""
    network, batch = build("mobilenetv2_100").eval(), images()
    assert torch.equal(network.head(network.embed(batch)), network(batch))


def test_channels_last_changes_nothing(build, images):
    """Logits in channels_last are those of the usual layout, up to rounding."""
    network, batch = build("resnet18").eval(), images()
    expected = network(batch)
    network = network.to(memory_format=torch.channels_last)
    found = network(batch.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_autocast_is_taken(build, images):
    """Under autocast the network gives finite logits near those of full precision."""
    network, batch = build("mobilenetv2_100").eval(), images()
    expected = network(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(batch)
    assert torch.nn.functional.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.98


def test_the_whole_network_is_one_graph(build, images):
    """torch.compile and torch.export see one graph, without a break."""
    network = build("own").eval()
    program = torch.export.export(network, (images(2),))
    batch = images(2)
    torch.testing.assert_close(program.module()(batch), network(batch))


def test_a_copy_gives_the_same_logits(build, images):
    """A network can be copied and pickled, as other processes ask for."""
    network, batch = build("mobilenetv2_100").eval(), images()
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(batch), network(batch))
