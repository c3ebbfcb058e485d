"""How fast a package answers, measured on networks whose time is known."""

import time

import pytest
import torch
from torch import nn

from medvision.evaluation.scoring import place
from medvision.evaluation.speed import _peak_memory, measure_latency, measure_speed
from medvision.records import Combination, Member, PackageInfo, Preprocessing, Speed, load_record, save_record

SIZE = 8


class Tiny(nn.Module):
    """(3 * 4 * 9 + 4) + (144 * 3 + 3) = 547 parameters."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))

    def forward(self, images):
        return self.layers(images.float() / 255)


class Slow(Tiny):
    """Takes a known time for a batch."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, images):
        time.sleep(self.seconds(len(images)))
        return super().forward(images)


class Waiting(nn.Module):
    """Takes a time that depends on the number of threads, and uses none of them."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        time.sleep(self.seconds(torch.get_num_threads()))
        return torch.zeros(len(images), 3)


class Hungry(Tiny):
    """Holds 64 MB for a while."""

    def forward(self, images):
        held = torch.ones(16_000_000)
        time.sleep(0.005)
        return super().forward(images) + 0 * held[0]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def package():
    """Return a package of n members, and what ``measure_speed`` is called with beside it."""

    def make(n=1, size=SIZE):
        member = Member("tiny", {}, Preprocessing(size, 3, (0,) * 3, (1,) * 3), 1.0, "run", 1, 0.5)
        lineage = dict.fromkeys(("manifest_fingerprint", "split_fingerprint", "run_key"), "x")
        return PackageInfo(
            name="p", dataset="d", classes=("a", "b", "c"), members=(member,) * n,
            combination=Combination(weights=(1.0,) * n), operating_points=(), conformal=None, **lineage,
        )  # fmt: skip

    return make


def measure(info, *networks):
    placed = [place(network, "cpu") for network in networks]
    return measure_speed(info, placed, size_bytes=1234, hardware="a CPU, 1 thread")


def test_latency_is_what_an_answer_takes(package):
    """Percentiles rise, are those of at least 50 answers, and hold the time that the network takes."""
    found = measure_latency(package(), [Slow(lambda n: 0.004)], seconds=0.1)
    assert 4 <= found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.p50_ms < 12
    assert found.n >= 50


def test_latency_is_that_of_as_many_threads_as_do_best(package):
    """Where threads wait for one another, an image is timed by one; the process has as many as before afterwards."""
    torch.set_num_threads(2)
    found = measure_latency(package(), [Waiting(lambda threads: 0.02 * (threads - 1))], seconds=0.1)
    assert found.threads == 1 and found.p95_ms < 20
    found = measure_latency(package(), [Waiting(lambda threads: 0.02 / threads)], seconds=0.1)
    assert found.threads == torch.get_num_threads() == 2


def test_latency_takes_its_time(package):
    """As many answers as the seconds allow, which are more than 50 of a fast network."""
    start = time.perf_counter()
    found = measure_latency(package(), [place(Tiny(), "cpu")], seconds=0.5)
    assert found.n > 100
    assert 0.5 <= time.perf_counter() - start < 3


def test_latency_of_an_ensemble_is_that_of_all_members(package):
    """Every member is asked."""
    found = measure_latency(package(3), [Slow(lambda n: 0.003)] * 3, seconds=0.1)
    assert found.p50_ms >= 9


def test_speed_of_a_tiny_network(package, tmp_path):
    """Every figure is positive, parameters are counted, what was given is kept, and the record can be saved."""
    found = measure(package(2), Tiny(), Tiny())
    assert found.n_parameters == 2 * 547
    assert (found.size_bytes, found.hardware) == (1234, "a CPU, 1 thread")
    assert 0 < found.latency.p50_ms <= found.latency.p95_ms <= found.latency.p99_ms
    # A batch costs little more than an image.
    assert found.throughput_images_s > 2 * 1000 / found.latency.p50_ms
    assert found.batch_size > 1
    assert found.peak_memory_bytes >= 2 * 547 * 4
    save_record(found, tmp_path / "speed.json")
    assert load_record(Speed, tmp_path / "speed.json") == found


def test_throughput_grows_with_the_batch_where_it_does(package):
    """A network that takes 5 ms and a half for each image answers over 1,000 a second in large batches."""
    found = measure(package(), Slow(lambda n: 0.005 + 0.0005 * n))
    assert found.batch_size >= 32
    assert 0.6 * 64 / 0.037 < found.throughput_images_s <= 64 / 0.037


def test_the_best_batch_is_not_the_largest(package):
    """Where larger batches are slower by image, the small one is chosen, and the largest ones are not timed."""
    asked = []

    def seconds(n):
        asked.append(n)
        return 0.001 * n**1.6

    found = measure(package(), Slow(seconds))
    assert found.batch_size == 1
    # Once, for its memory.
    assert asked.count(64) == 1


@pytest.mark.slow
def test_peak_memory_is_that_of_an_answer(package):
    """What a network holds while it answers is counted, with its weights, also where the process held more before."""
    torch.ones(50_000_000).sum()
    for _ in range(2):
        assert 60e6 < measure(package(), Hungry()).peak_memory_bytes < 200e6


def test_memory_of_a_gpu_is_the_rise_alone(monkeypatch):
    """What else the process holds on the GPU is not counted."""
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5_000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7_000)
    with _peak_memory(torch.device("cuda")) as peak:
        pass
    assert peak() == 2_000
