"""How the scores of members become those of a package, against the definitions."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medvision.models.ensemble import combine, member_scores, sharpen, softmax, stacking_features
from medvision.records import Combination, Member, Preprocessing


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 2, (3, 50, 4))


@pytest.fixture
def scores(logits):
    return softmax(logits)


def test_a_member_is_sharpened_by_its_own_temperature(logits):
    """Member scores are softmax(logits / T) with each member's T."""
    members = [Member("m", {}, Preprocessing(8, 3, (0,), (1,)), t, "r", 1, 0.5) for t in (0.5, 1.0, 3.0)]
    found = member_scores(list(logits), members)
    for each, raw, temperature in zip(found, logits, (0.5, 1.0, 3.0), strict=True):
        np.testing.assert_allclose(each, softmax(raw / temperature))


def test_soft_voting_is_the_weighted_mean(scores):
    """Soft voting averages probabilities by weight, whatever the weights sum to."""
    found = combine(scores, Combination(weights=(2.0, 1.0, 1.0)))
    np.testing.assert_allclose(found, (2 * scores[0] + scores[1] + scores[2]) / 4)


def test_hard_voting_counts_votes_and_the_mean_as_one_more(scores):
    """Each member's best class has its vote by weight; the mean probability is one vote more, shared out."""
    weights = np.array([2.0, 1.0, 1.0])
    found = combine(scores, Combination(rule="hard", weights=tuple(weights)))
    votes, mean = scores.argmax(axis=2), np.tensordot(weights, scores, axes=1) / 4
    for case in range(scores.shape[1]):
        shares = np.bincount(votes[:, case], weights=weights, minlength=4) / 4
        np.testing.assert_allclose(found[case], (3 * shares + mean[case]) / 4, rtol=1e-6)


def test_the_mean_probability_decides_between_equal_votes():
    """Two members of different opinion: the surer one wins, whichever of the classes is first by name."""
    sure, unsure = [0.05, 0.95], [0.6, 0.4]
    scores = np.array([[sure, sure[::-1]], [unsure, unsure[::-1]]])
    assert combine(scores, Combination("hard", (1.0, 1.0))).argmax(axis=1).tolist() == [1, 0]


def test_ties_favour_no_class():
    """Of many ties between two members of the same strength the first class wins about half."""
    scores = softmax(np.random.default_rng(3).normal(size=(2, 4000, 2)))
    votes = scores.argmax(axis=2)
    winners = combine(scores, Combination("hard", (1.0, 1.0))).argmax(axis=1)[votes[0] != votes[1]]
    assert abs(winners.mean() - 0.5) < 0.05


@pytest.mark.parametrize("m", [2, 3, 5])
def test_no_majority_is_outvoted_by_the_mean(m):
    """The class with the most votes wins, however sure the others are of theirs."""
    scores = softmax(4 * np.random.default_rng(m).normal(size=(m, 5000, 3)))
    votes = np.stack([(scores.argmax(axis=2) == c).sum(axis=0) for c in range(3)], axis=1)
    winners = combine(scores, Combination("hard", (1.0,) * m)).argmax(axis=1)
    np.testing.assert_array_equal(votes[np.arange(5000), winners], votes.max(axis=1))


def test_a_near_tie_moves_no_more_than_a_vote():
    """A member that changes its mind by a hair changes the winner's score by less than the share of a vote."""
    scores = np.array([[[0.9, 0.1]] * 2, [[0.8, 0.2]] * 2, [[0.5 + 1e-6, 0.5 - 1e-6], [0.5 - 1e-6, 0.5 + 1e-6]]])
    before, after = combine(scores, Combination("hard", (1.0,) * 3))[:, 0]
    assert 0 < before - after < 1 / 3


def test_a_member_that_is_undecided_shares_its_vote():
    """Scores stay probabilities where a member has no best class."""
    scores = np.array([[[0.5, 0.5]], [[0.7, 0.3]]])
    np.testing.assert_allclose(combine(scores, Combination("hard", (1.0, 1.0))), [[2.1 / 3, 0.9 / 3]], rtol=1e-6)


def test_stacking_is_a_logistic_regression_on_log_probabilities(scores):
    """Coefficients of scikit-learn's multinomial regression on the features give its probabilities."""
    labels = np.random.default_rng(1).integers(0, 4, scores.shape[1])
    regression = LogisticRegression(max_iter=10_000).fit(stacking_features(scores), labels)
    combination = Combination(
        rule="stacking",
        coefficients=tuple(map(tuple, regression.coef_.tolist())),
        intercepts=tuple(regression.intercept_.tolist()),
    )
    found = combine(scores, combination)
    np.testing.assert_allclose(found, regression.predict_proba(stacking_features(scores)), rtol=1e-6)


@pytest.mark.parametrize("rule", ["soft", "hard", "stacking"])
def test_combined_scores_are_probabilities(scores, rule):
    """Every rule gives probabilities whose rows sum to 1, also after a temperature."""
    coefficients = tuple(map(tuple, np.eye(4, 12))) if rule == "stacking" else ()
    combination = Combination(rule, (1.0,) * 3, coefficients, (0.0,) * 4, temperature=1.7)
    found = combine(scores, combination)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_temperature_of_probabilities_is_one_of_logits(logits):
    """Sharpening probabilities is dividing the logits that they came from."""
    np.testing.assert_allclose(sharpen(softmax(logits[0]), 2.5), softmax(logits[0] / 2.5), rtol=1e-9)


def test_a_certain_member_breaks_nothing():
    """Probabilities of exactly 0 and 1 have finite scores after a temperature."""
    certain = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert np.isfinite(combine(certain, Combination(temperature=3.0))).all()
