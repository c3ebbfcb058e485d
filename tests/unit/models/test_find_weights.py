"""A folder of weights, from which each model takes its own."""

import pytest
import timm
import torch

from medvision.errors import WeightsUnavailable
from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.models.weights import find_weights

OPTIONS = {"mean": (0.4,) * 3, "std": (0.2,) * 3}


@pytest.fixture
def folder(tmp_path):
    """Return a folder that has files of these names."""

    def make(*names):
        for name in names:
            (tmp_path / name).touch()
        return tmp_path

    return make


def test_a_file_is_itself(folder):
    """A path that is no folder is returned as it is, whatever its name, also if it does not exist."""
    path = folder("anything.bin") / "anything.bin"
    assert find_weights(path, "resnet18") == path
    assert find_weights(path.with_name("absent.pth"), "resnet18") == path.with_name("absent.pth")


@pytest.mark.parametrize(
    "name",
    ["resnet18.pth", "resnet18.pt", "resnet18.safetensors", "resnet18_imagenet.pth", "resnet18_imagenet.safetensors",
     "resnet18-5c106cde.pth", "resnet18.a1_in1k.safetensors"],
)  # fmt: skip
def test_the_file_of_the_model_is_found(folder, name):
    """By its name alone, or with what usually follows it."""
    found = folder("resnet1.pth", "resnet180.pth", "densenet121.pth", "resnet18.txt", name)
    assert find_weights(found, "resnet18").name == name


def test_the_plain_name_comes_first(folder):
    """Of several files the plain one is taken, then the one of ImageNet, before a variant of the architecture."""
    found = folder("resnet50-0676ba61.pth", "resnet50_gn.pth", "resnet50_imagenet.pth")
    assert find_weights(found, "resnet50").name == "resnet50_imagenet.pth"
    assert find_weights(folder("resnet50.pth"), "resnet50").name == "resnet50.pth"


def test_the_first_name_comes_first(folder):
    """A model's own name goes before that of its architecture, which serves where the own has no file."""
    found = folder("tf_efficientnet_b0.pth")
    assert find_weights(found, "efficientnet_b0", "tf_efficientnet_b0").name == "tf_efficientnet_b0.pth"
    assert find_weights(folder("efficientnet_b0.pth"), "efficientnet_b0", "tf_efficientnet_b0").name == (
        "efficientnet_b0.pth"
    )


def test_no_match_lists_what_is_there(folder):
    """The refusal names the model, a file that would do, and the weights that there are."""
    found = folder("densenet121.pth", "resnet34.safetensors", "notes.txt")
    with pytest.raises(WeightsUnavailable, match=r"no weights of resnet18: expected resnet18\.pth") as refusal:
        find_weights(found, "resnet18")
    assert "found densenet121.pth, resnet34.safetensors" in str(refusal.value)
    assert "notes.txt" not in str(refusal.value)


def test_an_empty_folder_says_so(tmp_path):
    """A folder without any weights, also one with a folder of the right name, has none."""
    (tmp_path / "resnet18.pth").mkdir()
    with pytest.raises(WeightsUnavailable, match="found no weights at all"):
        find_weights(tmp_path, "resnet18")


def test_a_model_of_timm_is_named_as_a_file_can_be(tmp_path):
    """The file that is asked for has no slash in its name."""
    with pytest.raises(WeightsUnavailable, match=r"weights of timm/resnet10t: expected resnet10t\.pth"):
        find_weights(tmp_path, "timm/resnet10t", "resnet10t")


def test_a_network_takes_its_weights_from_a_folder(tmp_path):
    """A network that is built with a folder has the weights of the file that is named after it."""
    torch.manual_seed(7)
    donor = timm.create_model("mobilenetv2_050", pretrained=False)
    torch.save(donor.state_dict(), tmp_path / "mobilenetv2_050_imagenet.pth")
    architecture = Architecture("my_mobilenet", "mobilenetv2_050", "linear", 2, 3, 32)
    found = build_network(architecture, pretrained=tmp_path, **OPTIONS).backbone.state_dict()
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in found.items())


def test_medvisions_own_models_start_from_scratch(tmp_path):
    """A folder has no weights of a model of medvision's own, which is no reason to refuse it."""
    architecture = Architecture("simple_cnn", "own", "linear", 2, 3, 32)
    build_network(architecture, pretrained=tmp_path, **OPTIONS)


def test_a_network_without_a_file_is_refused(tmp_path):
    """No network starts from random weights because its file is missing."""
    architecture = Architecture("my_mobilenet", "mobilenetv2_050", "linear", 2, 3, 32)
    with pytest.raises(WeightsUnavailable, match="no weights of my_mobilenet"):
        build_network(architecture, pretrained=tmp_path, **OPTIONS)
