"""Heat maps lie where the evidence is, and looking leaves the network as it was."""

import copy

import numpy as np
import pytest
import torch

from medvision.evaluation.explain import package_saliency, saliency
from medvision.models.catalog import Architecture
from medvision.models.ensemble import softmax
from medvision.models.network import Network, build_network
from medvision.records import Combination, Member, PackageInfo, Preprocessing, as_dict
from medvision.training.ensembling import fit_combination

SIDE, CORNER = 64, 24


def draw(rng, corner=None):
    """Return noise, uint8 (64, 64, 1), with a bright blob in a corner: 0 to 3, row by row."""
    image = rng.normal(80, 12, (SIDE, SIDE, 1))
    if corner is not None:
        y, x = np.mgrid[:SIDE, :SIDE] - np.array([12, 12])[:, None, None]
        row, column = divmod(corner, 2)
        y, x = y - 40 * row, x - 40 * column
        image += 120 * np.exp(-(x**2 + y**2) / 50)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)


class SmallCNN(torch.nn.Module):
    """A backbone whose features see 15 pixels, so that there is no doubt where the evidence for them is."""

    def __init__(self):
        super().__init__()
        layers = []
        for n_inputs, n_outputs, stride in ((1, 16, 2), (16, 32, 2), (32, 32, 1)):
            layers += [torch.nn.Conv2d(n_inputs, n_outputs, 3, stride, 1), torch.nn.BatchNorm2d(n_outputs)]
            layers += [torch.nn.ReLU(inplace=True)]
        self.forward_features = torch.nn.Sequential(*layers)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))

    def forward_head(self, features):
        return features.mean(dim=(2, 3))


def teach(network, steps, lr):
    """Teach a network in seconds whether there is a blob in any corner."""
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    for _ in range(steps):
        y_true = rng.integers(0, 2, 32)
        images = np.stack([draw(rng, rng.integers(4) if label else None) for label in y_true])
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y_true))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def architecture(timm_name, *, channels=1, n_classes=2, side=SIDE, head="linear"):
    return Architecture("toy", timm_name, head, n_classes, channels, side)


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(0)
    form = Preprocessing(SIDE, 1, (0.35,), (0.1,))
    return teach(Network(SmallCNN(), torch.nn.Linear(32, 2), architecture("own"), form), steps=40, lr=1e-2)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    network = build_network(architecture("vit_tiny_patch16_224"), mean=(0.35,), std=(0.1,), pretrained=False)
    return teach(network, steps=40, lr=3e-4)


@pytest.fixture
def image():
    return draw(np.random.default_rng(1), corner=2)


def mass(places, corner):
    """Return the share of a map within a corner."""
    row, column = divmod(corner, 2)
    rows = slice(-CORNER, None) if row else slice(CORNER)
    columns = slice(-CORNER, None) if column else slice(CORNER)
    return places[rows, columns].sum() / places.sum()


def enlarged(places):
    """Return a map at the image's size, its highest value 1."""
    tensor = torch.from_numpy(np.asarray(places, dtype=np.float32))[None, None]
    large = torch.nn.functional.interpolate(tensor, (SIDE, SIDE), mode="bilinear")[0, 0].numpy()
    return large / large.max()


@pytest.mark.parametrize("name", ["cnn", "vit"])
@pytest.mark.parametrize("corner", range(4))
def test_map_lies_on_the_evidence(name, corner, request):
    """Most of the map lies in the corner, a seventh of the image, whose blob decides the class."""
    places = saliency(request.getfixturevalue(name), draw(np.random.default_rng(corner), corner), 1)
    assert places.shape == (SIDE, SIDE)
    assert places.dtype == np.float32
    assert 0 <= places.min() < places.max() == 1
    assert mass(places, corner) > 0.6


def test_grad_cam_of_a_linear_head_is_cam(cnn, image):
    """Behind a mean over places and a linear head, Grad-CAM is the class activation map (Zhou et al., CVPR 2016)."""
    found = []
    handle = cnn.backbone.forward_features.register_forward_hook(lambda module, inputs, output: found.append(output))
    with torch.no_grad():
        cnn(torch.from_numpy(image).permute(2, 0, 1)[None])
    handle.remove()
    cam = torch.einsum("k,khw->hw", cnn.head.weight[1], found[0][0]).clamp(min=0)
    np.testing.assert_allclose(saliency(cnn, image, 1), enlarged(cam.detach().numpy()), atol=1e-4)


def test_occlusion_is_the_fall_of_the_log_odds(vit, image):
    """Each cell holds by how much the class loses when the mean pixel is there, over the largest such loss."""

    def log_odds(pixels):
        with torch.no_grad():
            y_score = softmax(vit(torch.from_numpy(pixels).permute(2, 0, 1)[None]).numpy())[0]
        return np.log(y_score[1] / y_score[0])

    falls = np.zeros((8, 8))
    for row, column in np.ndindex(8, 8):
        occluded = image.copy()
        occluded[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = round(float(image.mean()))
        falls[row, column] = max(0, log_odds(image) - log_odds(occluded))
    np.testing.assert_allclose(saliency(vit, image, 1), enlarged(falls), atol=1e-3)


class ChannelsLast(torch.nn.Module):
    """A backbone that gives its features as (B, H, W, C), as swin does."""

    output_fmt = "NHWC"

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward_features(self, images):
        return self.backbone.forward_features(images).permute(0, 2, 3, 1)

    def forward_head(self, features):
        return self.backbone.forward_head(features.permute(0, 3, 1, 2))


def test_layout_of_features_does_not_matter(cnn, image):
    """Features with the channels last give the same map."""
    other = copy.deepcopy(cnn)
    other.backbone = ChannelsLast(other.backbone)
    np.testing.assert_allclose(saliency(other, image, 1), saliency(cnn, image, 1), atol=1e-6)


@pytest.mark.parametrize("name", ["own", "swin_tiny_patch4_window7_224", "densenet121", "resnet18"])
def test_networks_of_the_catalog(name):
    """A map comes of our own network, of transformers in stages, of heads with hidden layers, of one place."""
    form = architecture(name, channels=3, n_classes=3, side=32, head="medical")
    network = build_network(form, mean=(0.5,) * 3, std=(0.2,) * 3, pretrained=False)
    with torch.no_grad():
        for parameter in network.parameters():  # timm's last gammas of a block are zero, and nothing passes it
            parameter[parameter == 0] = 0.1
    places = saliency(network, np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), 2)
    assert places.shape == (32, 32)
    assert np.isfinite(places).all()
    assert places.min() >= 0
    assert places.max() <= 1


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_nothing_stands_out_in_one_colour(name, request):
    """An image of one colour gives zeros, and no NaN."""
    image = np.full((SIDE, SIDE, 1), 117, dtype=np.uint8)
    np.testing.assert_array_equal(saliency(request.getfixturevalue(name), image, 1), np.zeros((SIDE, SIDE)))


def test_class_without_evidence(cnn, image):
    """Where no place speaks for a class its map is zero."""
    other = copy.deepcopy(cnn)
    other.head.weight.data = -other.head.weight.data.abs()
    np.testing.assert_array_equal(saliency(other, image, 1), np.zeros((SIDE, SIDE)))


def test_frozen_weights_and_inference_mode(cnn, image):
    """A network that can't be trained any more, asked where gradients are off, gives the same map."""
    frozen = copy.deepcopy(cnn).requires_grad_(False)
    with torch.inference_mode():
        found = saliency(frozen, image, 1)
    np.testing.assert_array_equal(found, saliency(cnn, image, 1))


@pytest.mark.parametrize("mode", [True, False])
def test_network_stays_as_it_is(cnn, image, mode):
    """Weights, statistics, gradients and the mode of every module are what they were."""
    network = copy.deepcopy(cnn).train(mode)
    network.backbone.eval()
    network.zero_grad()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    saliency(network, image, 1)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def package(networks, sizes, combination):
    """Return what there is to say of a package of these networks, each with an input of its own size."""
    members = tuple(
        Member(
            f"member{number}", as_dict(network.architecture), Preprocessing(size, 1, (0.3,), (0.2,)), 1.0, "", 0, 0.0
        )
        for number, (network, size) in enumerate(zip(networks, sizes, strict=True))
    )
    return PackageInfo("toy", "blobs", ("none", "blob"), members, combination, (), None, "", "", "")


def test_package_of_one(cnn, image):
    """The map of a package of one network is the network's."""
    info = package([cnn], [SIDE], Combination())
    found = package_saliency(info, [cnn], lambda form: np.stack([np.zeros_like(image), image]), 1, 1)
    np.testing.assert_allclose(found, saliency(cnn, image, 1), atol=1e-6)


@pytest.mark.parametrize(
    "combination",
    [
        Combination("soft", (1.0, 3.0)),
        Combination("stacking", coefficients=((9.0, 9.0, 9.0, 9.0), (-0.5, 0.5, 2.0, 1.0)), intercepts=(0.0, 0.0)),
    ],
)
def test_package_of_several(combination, cnn, vit, image):
    """Maps are averaged by the members' weights, each on its own input, at the size of the largest."""
    inputs = {32: image[::2, ::2], SIDE: image}
    info = package([cnn, vit], [32, SIDE], combination)
    found = package_saliency(info, [cnn, vit], lambda form: inputs[form.image_size][None], 0, 1)
    small = torch.from_numpy(saliency(cnn, inputs[32], 1))[None, None]
    large = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(found, 0.25 * large + 0.75 * saliency(vit, image, 1), atol=1e-6)


@pytest.mark.parametrize("class_index", [0, 1])
def test_stack_of_two_classes(class_index, cnn, vit, image):
    """A stack of two classes that was fitted has a map of each, and its members the same weights for both."""
    rng = np.random.default_rng(0)
    members = rng.dirichlet((1, 1), (2, 80))
    combination, _ = fit_combination("stacking", members, (members[0, :, 1] > 0.5).astype(int), np.arange(80))
    info = package([cnn, vit], [SIDE, SIDE], combination)
    found = package_saliency(info, [cnn, vit], lambda form: image[None], 0, class_index)
    assert np.isfinite(found).all()
    weights = np.abs(combination.coefficients[1]).reshape(2, 2).sum(axis=1)
    maps = np.stack([saliency(network, image, class_index) for network in (cnn, vit)])
    np.testing.assert_allclose(found, np.average(maps, axis=0, weights=weights), atol=1e-6)


def test_a_stack_that_says_nothing_of_a_class(cnn, vit, image):
    """Where all coefficients of a class are 0, the members' maps count alike."""
    silent = Combination("stacking", coefficients=((0.0,) * 4, (1.0,) * 4), intercepts=(0.0, 0.0))
    found = package_saliency(package([cnn, vit], [SIDE, SIDE], silent), [cnn, vit], lambda form: image[None], 0, 0)
    expected = (saliency(cnn, image, 0) + saliency(vit, image, 0)) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)
