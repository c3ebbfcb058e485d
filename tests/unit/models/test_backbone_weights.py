import os

import pytest
import timm
import torch
from safetensors.torch import save_file

from medvision.errors import WeightsUnavailable
from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.models.weights import load_backbone_weights

NAME = "mobilenetv2_050"


def create(name=NAME, **options):
    torch.manual_seed(7)
    return timm.create_model(name, pretrained=False, **options)


@pytest.fixture
def donor():
    """A model with its classifier, as timm's files hold it."""
    return create()


def check_equal(backbone, donor):
    expected = donor.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_a_file_is_loaded_whatever_wrote_it(suffix, prefix, donor, tmp_path):
    """Every usual suffix and prefix is read, and the classifier of the file is left out."""
    tensors = {prefix + name: tensor for name, tensor in donor.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    backbone = timm.create_model(NAME, pretrained=False, num_classes=0)
    load_backbone_weights(backbone, path, model=NAME)
    check_equal(backbone, donor)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_a_checkpoint_is_unwrapped(key, donor, tmp_path):
    """The state dict inside a training's checkpoint is found."""
    torch.save({key: donor.state_dict(), "epoch": 3}, tmp_path / "best.pth")
    backbone = timm.create_model(NAME, pretrained=False, num_classes=0)
    load_backbone_weights(backbone, tmp_path / "best.pth", model=NAME)
    check_equal(backbone, donor)


def test_a_checkpoint_of_medvision_starts_another_training(build, tmp_path):
    """What one training has learned is the start of the next, for other classes."""
    first = build("own", n_classes=3, head="medical")
    torch.save({"model_state_dict": first.state_dict()}, tmp_path / "best_model.pth")
    architecture = Architecture("simple_cnn", "own", "linear", 2, 3, 32)
    options = {"mean": (0.4,) * 3, "std": (0.2,) * 3}
    second = build_network(architecture, pretrained=tmp_path / "best_model.pth", **options)
    check_equal(second.backbone, first.backbone)


@pytest.mark.parametrize("name", [NAME, "vit_tiny_patch16_224"])
def test_colour_weights_are_folded_for_gray_images(name, tmp_path):
    """A gray backbone answers a gray image as the colour one answers three equal channels."""
    donor = create(name, num_classes=0).eval()
    torch.save(donor.state_dict(), tmp_path / "weights.pth")
    gray = timm.create_model(name, pretrained=False, num_classes=0, in_chans=1).eval()
    load_backbone_weights(gray, tmp_path / "weights.pth", model=name)
    image = torch.rand(1, 1, 224, 224)
    torch.testing.assert_close(gray(image), donor(image.repeat(1, 3, 1, 1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_position_tables_are_resized(name, tmp_path):
    """The weights of a transformer at 224 pixels serve one that is built for another size."""
    torch.save(create(name).state_dict(), tmp_path / "weights.pth")
    backbone = timm.create_model(name, pretrained=False, num_classes=0, img_size=128)
    load_backbone_weights(backbone, tmp_path / "weights.pth", model=name)


def test_weights_of_another_architecture_are_refused_by_name(donor, tmp_path):
    """The refusal says how many keys are missing, names a few, and says which model was expected."""
    torch.save(donor.state_dict(), tmp_path / "weights.pth")
    backbone = timm.create_model("resnet18", pretrained=False, num_classes=0)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(WeightsUnavailable, match=r"weights of resnet18: \d+ of 100 keys are missing \(conv1\.weight"):
        load_backbone_weights(backbone, tmp_path / "weights.pth", model="resnet18")
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_deeper_sibling_is_refused(tmp_path):
    """resnet34 holds every key of resnet18 in the right shape, and is refused for what it holds besides."""
    torch.save(create("resnet34").state_dict(), tmp_path / "weights.pth")
    backbone = timm.create_model("resnet18", pretrained=False, num_classes=0)
    with pytest.raises(WeightsUnavailable, match="keys are unknown"):
        load_backbone_weights(backbone, tmp_path / "weights.pth", model="resnet18")


def test_a_wider_sibling_is_refused(tmp_path):
    """The same names with other shapes are refused with both shapes."""
    torch.save(create("mobilenetv2_100").state_dict(), tmp_path / "weights.pth")
    backbone = timm.create_model(NAME, pretrained=False, num_classes=0)
    with pytest.raises(WeightsUnavailable, match=r"another shape \(conv_stem\.weight: expected \(16, 3, 3, 3\), found"):
        load_backbone_weights(backbone, tmp_path / "weights.pth", model=NAME)


def test_a_single_missing_key_is_refused(donor, tmp_path):
    """No layer is left at random values in silence."""
    tensors = donor.state_dict()
    del tensors["blocks.3.1.bn2.running_var"]
    torch.save(tensors, tmp_path / "weights.pth")
    backbone = timm.create_model(NAME, pretrained=False, num_classes=0)
    with pytest.raises(WeightsUnavailable, match=r"1 of \d+ keys are missing \(blocks\.3\.1\.bn2\.running_var\)"):
        load_backbone_weights(backbone, tmp_path / "weights.pth", model=NAME)


def test_old_files_without_counters_are_loaded(donor, tmp_path):
    """Files older than torch 0.4.1, which lack the batch counters, are complete."""
    tensors = {name: value for name, value in donor.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(tensors, tmp_path / "weights.pth")
    load_backbone_weights(
        timm.create_model(NAME, pretrained=False, num_classes=0), tmp_path / "weights.pth", model=NAME
    )


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_pickle_does_not_run(donor, tmp_path):
    """A file that would run code when it is unpickled is refused, and its code has not run."""
    torch.save({"state_dict": donor.state_dict(), "extra": Canary(tmp_path / "canary")}, tmp_path / "weights.pth")
    with pytest.raises(WeightsUnavailable, match="could run code"):
        load_backbone_weights(donor, tmp_path / "weights.pth", model=NAME)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut off", b"\x80\x02."])
def test_a_damaged_file_is_refused_in_one_sentence(name, content, donor, tmp_path):
    """Whatever bytes are in the file, the refusal names it and says what to give instead."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsUnavailable, match=rf"{name} is damaged") as refusal:
        load_backbone_weights(donor, tmp_path / name, model=NAME)
    assert "weights_only" not in str(refusal.value)


def test_a_truncated_file_is_refused(donor, tmp_path):
    """Half a file is no weights."""
    torch.save(donor.state_dict(), tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "weights.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsUnavailable, match="is damaged"):
        load_backbone_weights(donor, tmp_path / "weights.pth", model=NAME)


@pytest.mark.parametrize("value", [[1, 2], 3, {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(value, donor, tmp_path):
    """A file of other plain values is told from weights."""
    torch.save(value, tmp_path / "weights.pth")
    with pytest.raises(WeightsUnavailable, match="no state dict"):
        load_backbone_weights(donor, tmp_path / "weights.pth", model=NAME)


@pytest.mark.parametrize("place", ["absent.pth", "."])
def test_a_missing_file_is_named(place, donor, tmp_path):
    """A path that is no file is refused with its name."""
    with pytest.raises(WeightsUnavailable, match="does not exist"):
        load_backbone_weights(donor, tmp_path / place, model=NAME)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_real_weights_tell_images_apart(channels, imagenet_weights, images):
    """ImageNet's mobilenetv2_100, from its file, gives finite embeddings that differ from image to image."""
    architecture = Architecture("mobilenetv2_100", "mobilenetv2_100", "linear", 2, channels, 224)
    options = {"mean": (0.45,) * channels, "std": (0.22,) * channels}
    network = build_network(architecture, pretrained=imagenet_weights, **options).eval()
    noise = images(1, channels=channels, size=224)
    with torch.inference_mode():
        one, other = network.embed(torch.cat([noise, noise // 4]))
    assert torch.isfinite(one).all()
    assert (one - other).abs().max() > 0.1


def test_the_real_weights_of_another_model_are_refused(imagenet_weights):
    """torchvision's squeezenet is not taken for a mobilenet."""
    path = imagenet_weights.with_name("squeezenet1_0_imagenet.pth")
    architecture = Architecture("mobilenetv2_100", "mobilenetv2_100", "linear", 2, 3, 224)
    with pytest.raises(WeightsUnavailable, match=r"260 of 260 keys are missing"):
        build_network(architecture, mean=(0.4,) * 3, std=(0.2,) * 3, pretrained=path)
