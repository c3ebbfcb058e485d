"""How members differ, against tables that were counted by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from medvision.evaluation.diversity import disagreement, pairwise_diversity


def members_that_are_right(*right, k=3):
    """Return members (m, n, k) that are right where ``right`` has a 1, and truths that are all class 0."""
    members = np.stack([np.eye(k)[1 - np.array(row)] for row in right])
    return members, np.zeros(len(right[0]), int)


def test_counted_by_hand():
    """Both right in 4, only a in 2, only b in 1, neither in 3 of 10: Q, disagreement and double fault by definition."""
    members, y_true = members_that_are_right([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 1, 0, 0, 0])
    (found,) = pairwise_diversity(("a", "b"), members, y_true)
    assert (found.a, found.b) == ("a", "b")
    assert found.q_statistic == pytest.approx((4 * 3 - 2 * 1) / (4 * 3 + 2 * 1))
    assert found.disagreement == pytest.approx(0.3)
    assert found.double_fault == pytest.approx(0.3)


def test_members_that_err_together_or_apart():
    """Q is 1 for members that err in the same cases, -1 for those that never do, and 0 for independent ones."""
    same, y_true = members_that_are_right([1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0])
    found = pairwise_diversity(("a", "b", "c", "d"), same, y_true)
    assert [pair.q_statistic for pair in found] == [1, -1, 0, -1, 0, 0]
    assert [pair.disagreement for pair in found] == [0, 1, 0.5, 1, 0.5, 0.5]
    assert [(pair.a, pair.b) for pair in found][:3] == [("a", "b"), ("a", "c"), ("a", "d")]


def test_q_of_faultless_members_is_not_defined():
    """Where a member is right in all cases, Q has no value."""
    members, y_true = members_that_are_right([1, 1, 1], [1, 1, 0])
    assert pairwise_diversity(("a", "b"), members, y_true)[0].q_statistic is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_members_do_not_disagree(dtype):
    """Where all members say the same, nothing of the uncertainty is between them, however unsure they are."""
    one = np.random.default_rng(0).dirichlet(np.ones(4), 50).astype(dtype)
    np.testing.assert_allclose(disagreement(np.stack([one, one, one])), 0, atol=1e-6)


def test_certain_members_that_differ_disagree_wholly():
    """Each of k members certain of a class of its own: disagreement 1."""
    assert disagreement(np.eye(3)[:, None, :]) == pytest.approx([1])


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("m", [2, 5])
def test_disagreement_lies_between_0_and_1(m, k):
    """Whatever the members say, also where probabilities are 0."""
    members = np.random.default_rng(m).dirichlet(np.full(k, 0.05), (m, 500))
    members[:, 0] = np.eye(k)[0]
    found = disagreement(members)
    assert found.shape == (500,)
    assert found.min() >= 0 and found.max() <= 1


def test_of_two_members_it_is_the_jensen_shannon_divergence():
    """The mutual information of prediction and member, of two, is scipy's divergence."""
    a, b = np.random.default_rng(1).dirichlet(np.ones(3), (2, 30))
    expected = jensenshannon(a, b, axis=1) ** 2 / np.log(3)
    np.testing.assert_allclose(disagreement(np.stack([a, b])), expected, atol=1e-12)
