"""A first recipe: each proposal follows from what was measured, and changes at the threshold that its reason names."""

from dataclasses import replace

import numpy as np
import pytest

from medvision.config import load_config
from medvision.data.recipe import Profile, propose

MODELS = ("simple_cnn", "mobilenetv2_100", "efficientnet_b0", "resnet18", "resnet18d")


def image(sides=False, ends=False, turns=False):
    """Return a mean image, (32, 32), that is like its mirror image, like itself upside down, and like its turn."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    if turns:
        return np.exp(-(x**2 + y**2))
    return np.exp(-((x - (0 if sides else 0.4)) ** 2) - 4 * (y - (0 if ends else 0.4)) ** 2)


LARGE = Profile(
    counts={"a": 2000, "b": 2000},
    median_side=512,
    is_gray=True,
    subgroups=(),
    mean_image=image(),
    modality="",
    has_gpu=True,
    pretrained=True,
)


def recipe(**changes):
    """Return {setting: (value, reason)} of a large dataset of large images on a GPU, but for some changes."""
    proposals = propose(replace(LARGE, **changes), MODELS)
    settings = [each.setting for each in proposals]
    assert len(settings) == len(set(settings))
    return {each.setting: (each.value, each.reason) for each in proposals}


def value(setting, **changes):
    """Return what is proposed for a setting, None if nothing is."""
    return recipe(**changes).get(setting, (None, ""))[0]


def few(n):
    """Return counts of n training images."""
    return {"a": n - n // 2, "b": n // 2}


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"has_gpu": False}, {"pretrained": False}, {"median_side": 28}, {"counts": {"a": 9000, "b": 3}},
        {"mean_image": image(turns=True)}, {"subgroups": ("sex", "age")}, {"counts": {"a": 5, "b": 0}},
        {"modality": "MR"},
        {"pretrained": False, "is_gray": False, "median_side": 3000}, {"mean_image": np.zeros((32, 32))},
    ],
)  # fmt: skip
def test_every_recipe_is_a_valid_config(changes, tmp_path, monkeypatch):
    """The settings take whatever is proposed, and every proposal says why."""
    monkeypatch.chdir(tmp_path)
    found = recipe(**changes)
    load_config(overrides={setting: chosen for setting, (chosen, _) in found.items()})
    assert all(reason for _, reason in found.values())


def test_model_goes_by_the_device():
    """A GPU gets a network that it trains whole, a CPU the quickest backbone, and without weights it is a small one."""
    assert value("training.model") == "efficientnet_b0"
    assert value("training.model", has_gpu=False) == "mobilenetv2_100"
    assert value("training.model", pretrained=False) == "simple_cnn"


@pytest.mark.parametrize("as_folder", [True, False])
def test_model_goes_by_the_weights(tmp_path, as_folder):
    """Weights that are named after a model are for that model, the longest name of those that fit."""
    weights = tmp_path / "resnet18d_imagenet.pth"
    weights.touch()
    chosen, reason = recipe(pretrained=tmp_path if as_folder else weights)["training.model"]
    assert chosen == "resnet18d" and "weights" in reason


def test_weights_of_no_known_model(tmp_path):
    """Weights whose name tells no model leave the choice to the device."""
    weights = tmp_path / "best.pth"
    weights.touch()
    assert value("training.model", pretrained=weights, has_gpu=False) == "mobilenetv2_100"


@pytest.mark.parametrize(("n", "strategy"), [(999, "head"), (1000, "full")])
def test_strategy_goes_by_the_number_of_images(n, strategy):
    """On a GPU a thousand training images are enough for all layers, with a tenth of the learning rate."""
    found = recipe(counts=few(n))
    assert found["training.strategy"][0] == strategy
    assert f"{n:,}" in found["training.strategy"][1]
    assert found["training.lr"][0] == (0.0003 if strategy == "full" else 0.001)


def test_without_a_gpu_the_head_is_trained():
    """However many images there are, a CPU runs the backbone once."""
    chosen, reason = recipe(has_gpu=False)["training.strategy"]
    assert chosen == "head" and reason.startswith("without a GPU")


@pytest.mark.parametrize(("side", "size"), [(64, 64), (65, None)])
def test_small_images_stay_small(side, size):
    """Images of at most 64 pixels are not enlarged to what a network was trained on, and all of it is trained."""
    found = recipe(median_side=side, has_gpu=False)
    assert found.get("transform.image_size", (None,))[0] == size
    assert found["training.strategy"][0] == ("full" if size else "head")


@pytest.mark.parametrize(("side", "size"), [(20, 32), (32, 32), (90, 90), (128, 128), (2000, 128)])
def test_image_size_of_a_small_network(side, size):
    """The small network sees images at their own size, within 32 and 128 pixels."""
    assert value("transform.image_size", pretrained=False, median_side=side) == size


def test_one_channel_only_for_gray_images_without_weights():
    """One channel is proposed where all images are gray, and no pretrained layer wants three."""
    assert value("transform.grayscale", pretrained=False) is True
    assert value("transform.grayscale", pretrained=False, is_gray=False) is None
    assert value("transform.grayscale") is None


@pytest.mark.parametrize(("n", "batch"), [(999, 16), (1000, 32), (4999, 32), (5000, 64)])
def test_batch_goes_by_the_number_of_images(n, batch):
    """Few images are seen in small batches, many in large ones; the reason has the number."""
    chosen, reason = recipe(counts=few(n))["training.batch_size"]
    assert chosen == batch and f"{n:,} training images" in reason


@pytest.mark.parametrize(("counts", "imbalance"), [({"a": 299, "b": 100}, "weights"), ({"a": 300, "b": 100}, "none")])
def test_imbalance(counts, imbalance):
    """From three to one on nothing is weighed, since weights distort probabilities, and val_loss is watched."""
    found = recipe(counts=counts)
    assert found["training.imbalance"][0] == imbalance
    assert found.get("training.monitor", (None,))[0] == ("val_loss" if imbalance == "none" else None)


def test_a_class_without_training_images():
    """A class that has none counts as one image: the ratio is a number."""
    assert "50 times" in recipe(counts={"a": 50, "b": 0})["training.imbalance"][1]


@pytest.mark.parametrize(("sides", "ends"), [(True, False), (False, True), (False, False)])
def test_flips_go_by_the_mean_image(sides, ends):
    """An image is flipped along an axis only where the mean image is like its flip; the reason has the likeness."""
    found = recipe(mean_image=image(sides=sides, ends=ends))
    for setting, alike in (("transform.horizontal_flip", sides), ("transform.vertical_flip", ends)):
        chosen, reason = found[setting]
        assert chosen == (0.5 if alike else 0.0)
        assert ("are alike (r = 1.000)" in reason) == alike
    assert found["transform.rotation"][0] == 10


def test_round_images_are_turned():
    """Where the mean image is alike in all directions, as in dermatoscopy, images are flipped and turned at will."""
    found = recipe(mean_image=image(turns=True))
    assert {setting: found[f"transform.{setting}"][0] for setting in ("horizontal_flip", "vertical_flip")} == {
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
    }
    assert found["transform.rotation"][0] == 180


def test_alike_in_both_axes_is_not_round():
    """An oblong that is alike on both sides is flipped, and not turned by more than a patient is."""
    assert value("transform.rotation", mean_image=image(sides=True, ends=True)) == 10


@pytest.mark.parametrize(("modality", "share"), [("CT", 0.05), ("MR", 0.2), ("US", None), ("", None)])
def test_brightness_goes_by_the_modality(modality, share):
    """Hounsfield units hardly vary, MR signals do; of other modalities nothing is proposed."""
    found = recipe(modality=modality)
    for setting in ("transform.brightness", "transform.contrast"):
        assert found.get(setting, (None,))[0] == share


def test_subgroups_are_those_of_the_dataset():
    """Columns that the dataset brought are what figures are told apart by; without any nothing is proposed."""
    assert value("evaluation.subgroups", subgroups=("sex", "age")) == ["sex", "age"]
    assert value("evaluation.subgroups") is None
