"""Embeddings of a frozen backbone: computed once, kept, and those that the network gives."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from medvision.config import TransformConfig
from medvision.training import embeddings
from medvision.training.embeddings import embed_views


@pytest.fixture
def embed(build, make_data, tmp_path):
    """Embed the train rows of the default images; settings can be changed."""

    def run(network=None, data=None, **settings):
        data = data or make_data()
        arguments = {"views": range(2), "augmentation": TransformConfig(), "seed": 42, "half": False, **settings}
        return embed_views(
            network or build(),
            data.images,
            arguments.pop("rows", data.train),
            device=torch.device("cpu"),
            folder=tmp_path / "cache",
            pixels_fingerprint=data.fingerprint,
            **arguments,
        )

    return run


def test_the_first_view_is_the_image_as_it_is(build, make_data, embed):
    """View 0 equals what the network in evaluation mode embeds."""
    network, data = build(), make_data()
    embedded = embed(network, data)
    with torch.inference_mode():
        expected = network.eval().embed(torch.from_numpy(data.images[data.train]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(embedded[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_views_differ(embed):
    """Each augmented view of an image has an embedding of its own."""
    embedded = embed(views=range(3))
    assert embedded.shape == (3, 48, 256)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (embedded[one] != embedded[other]).any(axis=1).all()


def test_a_view_depends_on_seed_and_row_alone(embed):
    """Embedding other rows beside it changes no row's views."""
    np.testing.assert_allclose(embed(rows=np.array([7, 3, 40]))[1], embed()[1][[7, 3, 40]], rtol=1e-4, atol=1e-5)


def test_the_second_call_reads_the_file(embed, monkeypatch):
    """What is embedded once is read from the disk afterwards: the backbone is not run again."""
    first = np.array(embed())

    def fail(*arguments, **options):
        raise AssertionError("the backbone was run again")

    monkeypatch.setattr(embeddings, "embed_batches", fail)
    np.testing.assert_array_equal(embed(), first)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"views": range(3)},
        {"views": range(1, 2)},
        {"half": True},
        {"augmentation": TransformConfig(rotation=45)},
    ],
)
def test_other_settings_are_embedded_anew(embed, tmp_path, change):
    """Another seed, number of views, precision or augmentation gets a file of its own."""
    embed()
    embed(**change)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_another_backbone_is_embedded_anew(build, embed, tmp_path):
    """A backbone with other weights gets a file of its own; a network with another head does not."""
    embed()
    other_head = build()
    torch.nn.init.zeros_(other_head.head.weight)
    embed(other_head)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    other_backbone = build()
    with torch.no_grad():
        next(other_backbone.backbone.parameters()).add_(0.01)
    embed(other_backbone)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_other_pixels_are_embedded_anew(make_data, embed, tmp_path):
    """A dataset with another fingerprint gets a file of its own."""
    embed()
    data = make_data()
    object.__setattr__(data, "fingerprint", "other")
    embed(data=data)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_one_view_does_not_depend_on_the_augmentation(embed, tmp_path):
    """Without augmented views neither seed nor augmentation matter, and one file serves all."""
    embed(views=range(1))
    embed(views=range(1), seed=7, augmentation=TransformConfig(rotation=45))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_two_at_once_embed_once(build, embed, monkeypatch):
    """Of two trainings that want the same embeddings at once, one computes them and the other waits for it."""
    calls = []
    compute = embeddings.embed_batches

    def count(*arguments, **options):
        calls.append(1)
        return compute(*arguments, **options)

    monkeypatch.setattr(embeddings, "embed_batches", count)
    results = {}

    def run(name, network):
        results[name] = embed(network)

    threads = [threading.Thread(target=run, args=(name, build())) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(results["a"], results["b"])
    assert len(calls) == 2  # one a view


def test_half_precision_stays_close(embed):
    """Embeddings in bfloat16 differ from those in float32 by a few per cent at most."""
    exact, half = embed(), embed(half=True)
    assert half.dtype == np.float32
    assert np.linalg.norm(half - exact) < 0.03 * np.linalg.norm(exact)


def test_embedding_leaves_the_network_in_its_mode(build, embed):
    """The network is in training mode afterwards if it was before, and no statistic of it has changed."""
    network = build()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    embed(network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
