import os
import subprocess
import sys

import pytest

from medvision.errors import ConfigInvalid
from medvision.models.catalog import find, load_catalog

ENTRY = "net: {timm_name: resnet18, image_size: 64, strategy: full, optimizer: sgd, lr: 1e-3, head: linear}\n"


def test_every_promised_model_is_in_the_catalog():
    """The catalog holds the thirteen models that users are promised."""
    assert set(load_catalog()) == {
        *("resnet18", "resnet50", "efficientnet_b0", "swin_t", "swin_s", "vit_b_16", "medical_cnn"),
        *("xception_medical", "vgg16", "densenet121", "regnety_002", "mobilenetv2_100", "simple_cnn"),
    }


def test_the_recipes_that_users_know_are_kept():
    """vit_b_16 and medical_cnn train the head only; xception_medical all of it, with Adamax at 1e-3 and 299 pixels."""
    catalog = load_catalog()
    assert (catalog["vit_b_16"].strategy, catalog["vit_b_16"].optimizer) == ("head", "adamw")
    assert (catalog["medical_cnn"].strategy, catalog["medical_cnn"].head) == ("head", "medical")
    xception = catalog["xception_medical"]
    assert (xception.strategy, xception.optimizer, xception.lr, xception.image_size, xception.head) == (
        *("full", "adamax", 1e-3, 299, "medical"),
    )


def test_an_unknown_model_names_the_nearest():
    """A misspelled model is refused with the name that was probably meant."""
    with pytest.raises(ConfigInvalid, match="Did you mean 'densenet121'"):
        find("denstnet121")


def test_any_timm_model_is_found():
    """timm/NAME is a model, at the image size that timm gives it."""
    entry = find("timm/tf_efficientnet_b3")
    assert (entry.name, entry.timm_name, entry.image_size) == ("timm/tf_efficientnet_b3", "tf_efficientnet_b3", 300)


def test_an_unknown_timm_model_names_the_nearest():
    """A misspelled timm model is refused with the name that was probably meant."""
    with pytest.raises(ConfigInvalid, match="Did you mean 'timm/convnext_tiny'"):
        find("timm/convnextt_tiny")


def test_a_model_is_never_fetched_by_name_from_a_stranger():
    """timm's own hf-hub: and local-dir: names are refused, since they load what anyone has put there."""
    for name in ("timm/hf-hub:someone/resnet18", "timm/local-dir:/tmp"):
        with pytest.raises(ConfigInvalid):
            find(name)


def test_an_unknown_key_names_the_nearest(tmp_path):
    """A misspelled key of an entry is refused with the key that was probably meant."""
    path = tmp_path / "models.yaml"
    path.write_text(ENTRY.replace("image_size", "imagesize"))
    with pytest.raises(ConfigInvalid, match=r"net\.imagesize: unknown key\. Did you mean 'image_size'"):
        load_catalog(path)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("strategy: full", "strategy: most", "strategy"),
        ("optimizer: sgd", "optimizer: lion", "optimizer"),
        ("lr: 1e-3", "lr: -1", "lr"),
        ("image_size: 64", "image_size: 8", "image_size"),
        (", head: linear", "", "head"),
    ],
)
def test_a_meaningless_value_is_named(tmp_path, old, new, place):
    """A value out of range, or none, is refused with its place."""
    path = tmp_path / "models.yaml"
    path.write_text(ENTRY.replace(old, new))
    with pytest.raises(ConfigInvalid, match=rf"net\.{place}"):
        load_catalog(path)


@pytest.mark.parametrize("text", ["- a list", "net: 3", "net: {", "\xff"])
def test_a_file_that_is_no_catalog_is_refused(tmp_path, text):
    """A file of another kind gives a ConfigInvalid that names the file."""
    path = tmp_path / "models.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigInvalid, match=r"models\.yaml"):
        load_catalog(path)


def test_the_project_s_own_catalog_wins(tmp_path, monkeypatch):
    """In a project's folder the catalog is the project's, so that users can add to it."""
    (tmp_path / "MLproject").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.yaml").write_text(ENTRY)
    monkeypatch.chdir(tmp_path)
    assert list(load_catalog()) == ["net"]


def test_the_catalog_is_found_from_anywhere(tmp_path, monkeypatch):
    """Outside any project the catalog of the checkout is used."""
    monkeypatch.chdir(tmp_path)
    assert "resnet18" in load_catalog()


def test_listing_the_catalog_loads_no_torch():
    """The command line can list the models at once."""
    code = (
        "import sys; from medvision.models.catalog import load_catalog; load_catalog(); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert answer.stdout.strip() == "False"
