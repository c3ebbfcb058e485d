import socket
import threading
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from medvision.errors import WeightsUnavailable
from medvision.models.catalog import Architecture
from medvision.models.hub import create_from_hub
from medvision.models.network import build_network


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def no_such_name(*_, **__):
    raise socket.gaierror(-2, "Name or service not known")


@pytest.fixture
def no_answer():
    """A name server that is silent until the test is over."""
    over = threading.Event()

    def ask(*_, **__):
        over.wait()
        no_such_name()

    yield ask
    over.set()


@pytest.mark.parametrize("name", ["resnet18", "legacy_xception"])
def test_without_internet_both_ways_out_are_named(name, monkeypatch):
    """A machine without internet is told at once what to give instead, and does not wait for retries."""
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    start = time.monotonic()
    with pytest.raises(WeightsUnavailable, match=r"--pretrained FILE.*--pretrained false"):
        create_from_hub(name, num_classes=0)
    assert time.monotonic() - start < 5


def test_a_network_that_swallows_everything_costs_seconds(no_answer, monkeypatch):
    """Behind a firewall that never answers the refusal still comes within seconds."""
    monkeypatch.setattr(socket, "getaddrinfo", no_answer)
    start = time.monotonic()
    with pytest.raises(WeightsUnavailable, match=r"--pretrained FILE.*--pretrained false"):
        create_from_hub("resnet18", num_classes=0)
    assert time.monotonic() - start < 20


def test_a_refused_connection_is_no_network(monkeypatch):
    """A hub that refuses the connection gives the same answer."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
        create_from_hub("resnet18", num_classes=0)


def test_a_model_without_pretrained_weights_is_named():
    """A timm model that nobody has trained is refused without asking the network."""
    with pytest.raises(WeightsUnavailable, match="timm names no pretrained weights"):
        create_from_hub("vit_small_patch16_36x1_224", num_classes=0)


def test_weights_of_an_earlier_download_need_no_network(tmp_path, monkeypatch):
    """What the hub's cache holds is used when the network is down."""
    donor = timm.create_model("mobilenetv2_050", pretrained=False)
    repository = tmp_path / "hub" / "models--timm--mobilenetv2_050.lamb_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(donor.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    backbone = create_from_hub("mobilenetv2_050", num_classes=0)
    assert torch.equal(backbone.conv_stem.weight, donor.conv_stem.weight)


def test_simple_cnn_needs_no_hub(monkeypatch):
    """A model of medvision's own starts from scratch, and asks nobody for weights."""
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    architecture = Architecture("simple_cnn", "own", "linear", 2, 3, 32)
    build_network(architecture, mean=(0.4,) * 3, std=(0.2,) * 3, pretrained=True)
