"""The sample that is corrupted, and how figures fall."""

import numpy as np
import pytest

from medvision.evaluation.paired import difference, draw
from medvision.evaluation.robustness import FIGURES, choose_sample, describe_fall, select_figures
from medvision.records import Plan

Y_TRUE = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [700, 290, 10]))


def test_a_sample_is_of_the_size_asked_for():
    """About n positions, sorted, each once."""
    found = choose_sample(Y_TRUE, 200, seed=1)
    assert abs(len(found) - 200) <= 3
    assert np.array_equal(found, np.unique(found))


def test_a_sample_keeps_the_classes():
    """Each class has its share of the sample."""
    counts = np.bincount(Y_TRUE[choose_sample(Y_TRUE, 200, seed=1)])
    assert counts.tolist() == [140, 58, 2]


def test_a_rare_class_stays_in_a_small_sample():
    """At least one case of each class."""
    assert set(Y_TRUE[choose_sample(Y_TRUE, 5, seed=1)]) == {0, 1, 2}


def test_a_small_split_is_taken_whole():
    """Where there are no more cases than asked for, all are taken."""
    assert choose_sample(Y_TRUE, 1000, seed=1).tolist() == list(range(1000))


def test_the_seed_chooses():
    """The same seed gives the same sample, another one another."""
    first, again, other = (choose_sample(Y_TRUE, 100, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_fall_is_positive_where_the_figure_got_worse(simulate_pair):
    """The fall is the plain figure less that of the corrupted images, with the paired interval."""
    good, bad = (draw(each, Plan(200)) for each in simulate_pair(np.random.default_rng(0), 60, 3, gain=1.0))
    found = describe_fall("noise", 3, good, bad)
    assert (found.kind, found.severity) == ("noise", 3)
    for name in FIGURES:
        assert found.values[name] == bad.values[name]
        assert found.falls[name] == difference(good, bad, name)
        assert found.falls[name].low > 0


def test_images_that_lose_nothing_have_no_fall(simulate_pair):
    """Scores that a corruption does not change fall by 0."""
    plain = draw(simulate_pair(np.random.default_rng(0), 60, 3)[0], Plan(100))
    assert all(fall.value == pytest.approx(0) for fall in describe_fall("blur", 1, plain, plain).falls.values())


def test_the_sensitivity_of_each_class_is_among_the_falls(simulate_pair):
    """A class that is lost while the others hold is seen: every class's sensitivity falls with its interval."""
    good, bad = (draw(each, Plan(200)) for each in simulate_pair(np.random.default_rng(0), 60, 3, gain=1.0))
    names = {*FIGURES, "sensitivity.no", "sensitivity.yes"}
    found = describe_fall("noise", 3, good, bad)
    assert set(found.values) == set(found.falls) == set(select_figures(good)) == names
    assert found.falls["sensitivity.yes"] == difference(good, bad, "sensitivity.yes")
    assert select_figures(good)["sensitivity.no"] == good.values["sensitivity.no"]
