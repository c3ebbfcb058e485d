"""An engine computes what PyTorch computes, or is not used."""

import numpy as np
import pytest
import torch

from medvision.errors import ConfigInvalid, EngineDiffers
from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.serving import engines
from medvision.serving.engines import TOLERANCE, TorchEngine, check_engine, golden_images, open_engine

CPU = torch.device("cpu")


def lively(name, channels=3, side=64):
    """Return a network of three classes whose every block counts: those of timm begin with weights of zero."""
    torch.manual_seed(0)
    architecture = Architecture(name, "own" if name == "simple_cnn" else name, "linear", 3, channels, side)
    network = build_network(architecture, mean=(0.4,) * channels, std=(0.2,) * channels, pretrained=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randint(0, 256, (8, channels, side, side), dtype=torch.uint8))
    return network.eval()


def noise(n, side=64, channels=3):
    return np.random.default_rng(1).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def networks():
    """Return two networks, of which one takes gray images of another size."""
    return [lively("test_resnet.r160_in1k"), lively("simple_cnn", channels=1, side=32)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


def images_of(networks, n):
    forms = [network.preprocessing for network in networks]
    found = {form: noise(n, form.image_size, form.channels) for form in forms}
    return found.__getitem__


@pytest.mark.parametrize("n", [1, 2, 5])
def test_onnx_gives_the_logits_of_torch(networks, cache, n):
    """Every member's logits are those of PyTorch, for one image and for several."""
    reference = TorchEngine(networks, CPU)
    engine = open_engine("onnx", reference, cache=cache, digest="d")
    asked = images_of(networks, n)
    for expected, found in zip(reference.logits(asked), engine.logits(asked), strict=True):
        assert found.shape == (n, 3)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_openvino_gives_the_logits_of_torch(networks, cache):
    """Where OpenVINO is installed it computes in full precision."""
    pytest.importorskip("openvino")
    reference = TorchEngine(networks, CPU)
    engine = open_engine("openvino", reference, cache=cache, digest="d")
    for expected, found in zip(*(each.logits(images_of(networks, 2)) for each in (reference, engine)), strict=True):
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_an_export_is_kept_by_digest(networks, tmp_path):
    """A package is exported once; another package has a file of its own."""
    reference, cache = TorchEngine(networks[1:], CPU), tmp_path / "engines"
    open_engine("onnx", reference, cache=cache, digest="one")
    (path,) = cache.iterdir()
    written = path.stat().st_mtime_ns
    open_engine("onnx", reference, cache=cache, digest="one")
    open_engine("onnx", reference, cache=cache, digest="two")
    assert path.stat().st_mtime_ns == written
    assert len(list(cache.iterdir())) == 2


def test_an_export_leaves_the_network_as_it_is(networks, tmp_path):
    """After an export PyTorch gives the very logits that it gave before."""
    reference = TorchEngine(networks, CPU)
    before = reference.logits(images_of(networks, 2))
    open_engine("onnx", reference, cache=tmp_path, digest="d")
    for expected, found in zip(before, reference.logits(images_of(networks, 2)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_file_of_other_weights_is_refused(networks, tmp_path):
    """An exported network that computes something else, as one that was exchanged, is not served."""
    other = lively("simple_cnn", channels=1, side=32)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    engines.exported(other, tmp_path / "d-0.onnx")
    with pytest.raises(EngineDiffers, match="--engine torch"):
        open_engine("onnx", TorchEngine(networks[1:], CPU), cache=tmp_path, digest="d")


def test_not_a_number_is_refused(networks):
    """An engine that gives NaN differs, whatever it is compared with."""

    class Broken:
        name = "broken"

        def logits(self, inputs):
            return [np.full((8, 3), np.nan, np.float32) for _ in networks]

    with pytest.raises(EngineDiffers):
        check_engine(Broken(), TorchEngine(networks, CPU))


def test_an_unknown_engine(networks, cache):
    """The message names those that there are."""
    with pytest.raises(ConfigInvalid, match="onnx, torch, openvino"):
        open_engine("tensorrt", TorchEngine(networks, CPU), cache=cache, digest="d")


def test_golden_images_differ_from_one_another():
    """A network is tried on images of several kinds, the same each time."""
    images = golden_images(32, 3)
    assert images.shape == (8, 32, 32, 3) and images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 8
    np.testing.assert_array_equal(images, golden_images(32, 3))


class SmallMemory(torch.nn.Module):
    """A network on a GPU that holds so many images at a time; the CPU, where ``place`` puts a copy, holds any."""

    def __init__(self, network, most):
        super().__init__()
        self.network, self.most, self.asked = network, most, []
        self.preprocessing = network.preprocessing

    def forward(self, images):
        self.asked.append(len(images))
        if self.most is not None and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(images)

    def __deepcopy__(self, memo):
        return SmallMemory(self.network, None)


@pytest.mark.parametrize("most", [8, 3, 1, 0])
def test_a_full_memory_splits_the_batch_and_goes_to_the_cpu(networks, most):
    """Where a GPU's memory is full the batch is halved, and at last computed on the CPU: the logits stay the same."""
    expected = TorchEngine(networks[1:], CPU).logits(images_of(networks, 8))
    small = SmallMemory(networks[1], most)
    (found,) = TorchEngine([small], CPU).logits(images_of(networks, 8))
    np.testing.assert_allclose(found, expected[0], atol=1e-6)
    assert min(small.asked) == max(most, 1) or most == 3


def test_going_to_the_cpu_takes_no_memory_of_the_gpu(networks, monkeypatch):
    """The copy for the CPU is not made beside the original, where even one image more found no room."""
    images, network = images_of(networks, 2), networks[1]
    (expected,) = TorchEngine([network], CPU).logits(images)
    compute = engines.compute_logits

    def computed(used, images, *, batch_size):
        if used is network:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(used, images, batch_size=batch_size)

    def copied(tensor, memo):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engines, "compute_logits", computed)
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", copied)
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", copied)
    (found,) = TorchEngine([network], CPU).logits(images)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("left", [0, 2000])
def test_an_exported_network_that_was_cut_off(networks, tmp_path, left):
    """A damaged file in the cache is exported again, and computes what PyTorch computes."""
    reference = TorchEngine(networks[1:], CPU)
    open_engine("onnx", reference, cache=tmp_path, digest="a")
    (path,) = tmp_path.glob("*.onnx")
    path.write_bytes(path.read_bytes()[:left])
    assert check_engine(open_engine("onnx", reference, cache=tmp_path, digest="a"), reference) <= TOLERANCE
