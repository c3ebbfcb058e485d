"""Batches depend on (seed, epoch, row) alone: not on worker processes, devices or what ran before."""

import pickle

import numpy as np
import pytest
import torch

from medvision.config import PerformanceConfig, TransformConfig
from medvision.data.datamodule import TrainingData
from medvision.data.loading import EpochSampler, HeldOut, TrainEmbeddings, TrainImages, build_loader, to_tensor
from medvision.data.transforms import Augmentation


@pytest.fixture
def images(noise, tmp_path):
    """Return 30 images in a read-only memory map, as the cache gives them."""
    np.save(tmp_path / "images.npy", noise(0, (30, 16, 16, 1)))
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.fixture
def train(images):
    rows = np.arange(0, 30, 2)
    return TrainImages(images, rows, np.arange(15), Augmentation(TransformConfig()), seed=7)


def batches(dataset, *, epoch=0, batch_size=4, workers=0):
    sampler = EpochSampler(len(dataset), seed=7)
    sampler.set_epoch(epoch)
    loader = build_loader(dataset, batch_size, PerformanceConfig(loader_workers=workers), sampler)
    return [(x.clone(), y.clone()) for x, y in loader]


def same(some, others):
    return len(some) == len(others) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(some, others, strict=True)
    )


def test_an_epoch_does_not_depend_on_what_ran_before(train):
    """Epoch 3 has the same batches, byte for byte, after other epochs and after none; other epochs have others."""
    first = batches(train, epoch=3)
    torch.manual_seed(99)
    np.random.seed(99)
    batches(train, epoch=1)
    assert same(batches(train, epoch=3), first)
    assert not same(batches(train, epoch=4), first)


def test_worker_processes_change_nothing(train):
    """Two worker processes give the batches, and the order, of none."""
    assert same(batches(train, epoch=2), batches(train, epoch=2, workers=2))


def test_workers_get_the_name_of_the_cache(train, images):
    """What is sent to a worker process does not grow with the images, and reads the same."""
    assert len(pickle.dumps(HeldOut(images, np.arange(2), np.arange(2)))) < images.nbytes / 4
    copy = pickle.loads(pickle.dumps(train))
    assert torch.equal(copy.__getitems__([(0, 3)])[0], train.__getitems__([(0, 3)])[0])
    part = HeldOut(images[10:], np.arange(2), np.arange(2))
    assert torch.equal(pickle.loads(pickle.dumps(part)).__getitems__([0, 1])[0], part.__getitems__([0, 1])[0])


def test_labels_go_with_their_images(images):
    """Each image of a shuffled batch has its own label."""
    unchanged = TransformConfig(horizontal_flip=0, rotation=0, shift=0, scale=0, brightness=0, contrast=0)
    rows = np.array([3, 8, 20, 21, 29])
    for x, y in batches(TrainImages(images, rows, rows * 10, Augmentation(unchanged), seed=0), batch_size=2):
        for image, label in zip(x, y, strict=True):
            assert torch.equal(image, to_tensor(images[[label // 10]])[0])


def test_held_out_in_order(images):
    """Held-out images come in order, untouched, to the last one."""
    rows = np.array([9, 2, 17])
    loaded = list(build_loader(HeldOut(images, rows, np.array([5, 6, 7])), 2, PerformanceConfig()))
    assert torch.equal(torch.cat([x for x, _ in loaded]), to_tensor(images[rows]))
    assert torch.cat([y for _, y in loaded]).tolist() == [5, 6, 7]


def test_to_tensor(noise):
    """(n, height, width, channels) becomes (n, channels, height, width), as uint8."""
    pixels = noise(0, (2, 4, 5, 3))
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 3, 4, 5) and tensor.dtype == torch.uint8
    assert tensor[1, 2, 3, 4] == pixels[1, 3, 4, 2]


def test_each_epoch_is_a_permutation():
    """Each epoch has every position once, in an order of its own, the same for the same seed."""
    sampler = EpochSampler(50, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs, order = zip(*sampler, strict=True)
        assert set(epochs) == {epoch} and sorted(order) == list(range(50))
        orders.append(order)
    assert len(set(orders)) == 3
    again = EpochSampler(50, seed=1)
    again.set_epoch(2)
    assert tuple(position for _, position in again) == orders[2]
    assert tuple(position for _, position in EpochSampler(50, seed=2)) != orders[0]


@pytest.mark.parametrize(("n", "world"), [(48, 2), (50, 3), (7, 4), (2, 4)])
def test_ranks_share_an_epoch(n, world):
    """The ranks together have every position; shares are of equal length, and only the padding is repeated."""
    shares = []
    for rank in range(world):
        sampler = EpochSampler(n, seed=1)
        sampler.share(rank, world)
        shares.append([position for _, position in sampler])
        assert len(shares[-1]) == len(sampler) == -(-n // world)
    together = [position for share in shares for position in share]
    assert set(together) == set(range(n))
    assert len(together) - n < world


def test_weights_draw_balanced():
    """Drawn by inverse frequency, a class of one in ten comes as often as the other."""
    labels = np.array([0] * 900 + [1] * 100)
    weights = 1 / np.bincount(labels)[labels]
    sampler = EpochSampler(1000, seed=0, weights=weights)
    shares = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        shares.append(labels[[position for _, position in sampler]].mean())
    assert len(set(shares)) > 1
    # 20,000 draws: the standard error is 0.0035.
    assert np.mean(shares) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize("n", range(2, 15))
@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_no_batch_of_one(images, n, batch_size):
    """A single image that is left over forms no batch; two or more do, and nothing else is left out."""
    dataset = TrainImages(images, np.arange(n), np.arange(n), Augmentation(TransformConfig()), seed=0)
    sizes = [len(y) for _, y in batches(dataset, batch_size=batch_size)]
    assert min(sizes) > 1 or n == 1
    assert sum(sizes) == n - (n % batch_size == 1)


def test_embeddings_take_one_view_of_each(noise):
    """An epoch takes each training image once, in one of its views; epochs choose other views."""
    embeddings = np.stack([np.arange(20) + 100 * view for view in range(4)])[:, :, None].astype(np.float32)
    dataset = TrainEmbeddings(embeddings[0], embeddings[1:], np.arange(20), np.arange(20), seed=3)
    chosen = []
    for epoch in range(2):
        loaded = batches(dataset, epoch=epoch, batch_size=7)
        x, y = torch.cat([x for x, _ in loaded])[:, 0], torch.cat([y for _, y in loaded])
        assert torch.equal(x % 100, y.float())
        chosen.append((x // 100)[y.argsort()].tolist())
    assert chosen[0] != chosen[1] and set(chosen[0]) == {0, 1, 2, 3}
    assert same(batches(dataset, epoch=1), batches(dataset, epoch=1))


def test_embeddings_of_a_pool(noise):
    """A training that takes its images from a pool sees its own rows, in each of their views."""
    pool = np.stack([np.arange(20) + 100 * view for view in range(3)])[:, :, None].astype(np.float32)
    rows = np.array([19, 3, 7, 11])
    dataset = TrainEmbeddings(pool[0], pool[1:], rows, np.arange(4), seed=3)
    x, y = zip(*(batch for epoch in range(8) for batch in batches(dataset, epoch=epoch, batch_size=2)), strict=True)
    x, y = torch.cat(x)[:, 0], torch.cat(y)
    assert torch.equal(x % 100, torch.from_numpy(rows)[y].float())
    assert set((x // 100).tolist()) == {0, 1, 2}


def test_datamodule(train, images):
    """A training gets its train split shuffled and the whole val split in order, without a trainer too."""
    data = TrainingData(
        train,
        HeldOut(images, np.arange(1, 30, 2), np.arange(15)),
        batch_size=4,
        seed=7,
        sample_weights=None,
        performance=PerformanceConfig(),
    )
    assert same(list(data.train_dataloader()), batches(train))
    assert torch.cat([y for _, y in data.val_dataloader()]).tolist() == list(range(15))
