"""How members are weighed: what val teaches, and that it is not asked about what it taught."""

import dataclasses

import numpy as np
import pytest

from medvision.errors import ConfigInvalid, DataInvalid, FingerprintMismatch
from medvision.models.ensemble import combine, member_scores, softmax
from medvision.records import Combination, Member, PackageInfo, Preprocessing
from medvision.training.ensembling import RULES, check_rule, fit_combination, join_packages


def val(k=3, m=60, size=4, seed=0, strengths=(1.5, 0.8, 0.0)):
    """Return members (members, n, k), truths and patients; a member of strength 0 knows nothing."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(m), size)
    y_true = (np.arange(m) % k)[groups]
    members = [softmax(random.normal(size=(len(groups), k)) + s * np.eye(k)[y_true]) for s in strengths]
    return np.stack(members).astype(np.float32), y_true, groups


def loss(y_score, y_true):
    return -np.log(y_score[np.arange(len(y_true)), y_true]).mean()


@pytest.mark.parametrize("k", [2, 3])
def test_fitted_weights_beat_equal_ones(k):
    """On val the fitted mixture has a smaller log loss than the plain mean, and than each member."""
    members, y_true, groups = val(k)
    combination, y_score = fit_combination("soft", members, y_true, groups)
    found = loss(y_score, y_true)
    assert found < loss(members.mean(axis=0), y_true)
    assert all(found <= loss(member, y_true) + 1e-6 for member in members)
    assert sum(combination.weights) == pytest.approx(1)
    assert min(combination.weights) >= 0


@pytest.mark.parametrize("k", [2, 3])
def test_a_useless_member_weighs_nothing(k):
    """A confident member that guesses gets about no weight."""
    members, y_true, groups = val(k)
    members[2] = softmax(6 * np.log(members[2]))
    combination, _ = fit_combination("soft", members, y_true, groups)
    assert combination.weights[2] < 0.02
    assert combination.weights[0] > combination.weights[1]


def test_weights_are_the_best_of_all():
    """Of two members no other weight has a smaller log loss."""
    members, y_true, groups = val(strengths=(1.5, 1.0))
    combination, y_score = fit_combination("soft", members, y_true, groups)
    tried = [loss(w * members[0] + (1 - w) * members[1], y_true) for w in np.linspace(0, 1, 201)]
    assert loss(y_score, y_true) <= min(tried) + 1e-6
    assert combination.weights[0] == pytest.approx(np.linspace(0, 1, 201)[np.argmin(tried)], abs=0.02)


def test_certain_and_wrong_members_break_nothing():
    """Probabilities of exactly 0 for the truth have finite weights."""
    members, y_true, groups = val()
    members[2] = np.eye(3)[(y_true + 1) % 3]
    combination, _ = fit_combination("soft", members, y_true, groups)
    assert np.isfinite(combination.weights).all()
    assert combination.weights[2] < 0.02


def test_hard_voting_gives_each_member_a_vote():
    """The scores are the shares of the votes, one a member and one for their mean."""
    members, y_true, groups = val()
    combination, y_score = fit_combination("hard", members, y_true, groups)
    assert combination == Combination("hard", (1.0, 1.0, 1.0))
    expected = np.stack([np.bincount(votes, minlength=3) / 3 for votes in members.argmax(axis=2).T])
    np.testing.assert_allclose(y_score, (3 * expected + members.mean(axis=0)) / 4, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("k", [2, 3])
def test_val_scores_are_probabilities(rule, k):
    """Whatever the rule, val's scores are (n, k), in [0, 1], and rows sum to 1."""
    members, y_true, groups = val(k)
    _, y_score = fit_combination(rule, members, y_true, groups)
    assert y_score.shape == (len(y_true), k)
    assert y_score.min() >= 0
    np.testing.assert_allclose(y_score.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("k", [2, 3])
def test_a_stack_serves_new_cases(k):
    """Fitted on val, the stack is at least about as good on new cases as its best member."""
    combination, _ = fit_combination("stacking", *val(k, m=150))
    members, y_true, _ = val(k, m=500, seed=1)
    found = combine(members, combination)
    assert loss(found, y_true) < min(loss(member, y_true) for member in members) + 0.01
    assert np.shape(combination.coefficients) == (k, 3 * k)
    assert np.shape(combination.intercepts) == (k,)


@pytest.mark.parametrize("k", [2, 3])
def test_a_stack_is_the_regression_of_scikit_learn(k):
    """The probabilities of the record are those of the logistic regression with the strength that folds chose."""
    from sklearn.linear_model import LogisticRegression

    from medvision.models.ensemble import stacking_features
    from medvision.training.ensembling import _STRENGTHS

    members, y_true, groups = val(k)
    combination, _ = fit_combination("stacking", members, y_true, groups)
    features = stacking_features(members)
    fits = [LogisticRegression(C=c, max_iter=5000).fit(features, y_true).predict_proba(features) for c in _STRENGTHS]
    assert min(np.abs(combine(members, combination) - fit).max() for fit in fits) < 1e-6


def test_a_stack_of_two_classes_treats_them_alike():
    """The coefficients of one class are those of the other with the opposite sign, and neither is a row of zeros."""
    combination, _ = fit_combination("stacking", *val(k=2))
    first, second = np.array(combination.coefficients)
    np.testing.assert_array_equal(first, -second)
    assert np.abs(first).max() > 0
    assert combination.intercepts[0] == -combination.intercepts[1]


@pytest.mark.parametrize("k", [2, 3])
def test_val_scores_of_a_stack_are_out_of_fold(k):
    """Thirty members that guess can be fitted to the labels of few cases: val's scores know nothing of them."""
    members, y_true, groups = val(k, m=40, size=1, strengths=(0.0,) * 30)
    combination, y_score = fit_combination("stacking", members, y_true, groups)
    assert (y_score.argmax(axis=1) == y_true).mean() < 1 / k + 0.25
    assert loss(y_score, y_true) > np.log(k) - 0.1
    assert loss(combine(members, combination), y_true) < loss(y_score, y_true)


def test_members_that_remember_patients_are_not_believed():
    """Members that know a val patient again would give its label away in folds by image, and do not by patient."""
    m, size = 20, 10
    groups = np.repeat(np.arange(m), size)
    y_true = np.random.default_rng(0).permutation(np.arange(m) % 2)[groups]
    known = np.where(groups == np.arange(m)[:, None], 0.99, 0.5)
    members = np.stack([known, 1 - known], axis=2)
    _, by_patient = fit_combination("stacking", members, y_true, groups)
    _, by_image = fit_combination("stacking", members, y_true, np.arange(m * size))
    assert (by_image.argmax(axis=1) == y_true).mean() > 0.95
    assert (by_patient.argmax(axis=1) == y_true).mean() < 0.75


def test_a_stack_is_the_same_each_time():
    """The same val gives the same stack."""
    first, again = (fit_combination("stacking", *val()) for _ in range(2))
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])


def test_few_patients_are_stacked_in_fewer_folds():
    """With three patients of a class there are three folds."""
    members, y_true, groups = val(k=2, m=20)
    keep = (y_true == 0) | (groups < 6)
    combination, y_score = fit_combination("stacking", members[:, keep], y_true[keep], groups[keep])
    assert np.isfinite(y_score).all()
    assert combination.rule == "stacking"


@pytest.mark.parametrize("n_patients", [0, 1])
def test_too_few_patients_to_stack_are_said(n_patients):
    """One patient of a class, or none, cannot be on both sides of a fold: refused, with the way out."""
    members, y_true, groups = val(k=2, m=20)
    keep = (y_true == 0) | (groups < 2 * n_patients)
    with pytest.raises(DataInvalid, match=f"val has {n_patients} patients.*--rule soft"):
        fit_combination("stacking", members[:, keep], y_true[keep], groups[keep])


def package(name="a", temperature=1.0, n_members=1, **changes):
    member = Member(name, {}, Preprocessing(8, 3, (0,), (1,)), 1.0, "run", 1, 0.5)
    lineage = dict.fromkeys(("manifest_fingerprint", "split_fingerprint", "run_key"), "x")
    info = PackageInfo(
        name=name, dataset="d", classes=("a", "b"), members=(member,) * n_members,
        combination=Combination(weights=(1.0,) * n_members, temperature=temperature),
        operating_points=(), conformal=None, **lineage,
    )  # fmt: skip
    return dataclasses.replace(info, **changes)


def test_members_keep_the_temperature_of_their_package():
    """A member of an ensemble gives the probabilities that its package gave alone."""
    packages = [package("a", 2.0), package("b", 0.5)]
    members = join_packages(packages).members
    assert [member.model for member in members] == ["a", "b"]
    logits = np.random.default_rng(0).normal(size=(5, 2))
    joined = member_scores([logits, logits], members)
    for scores, info in zip(joined, packages, strict=True):
        alone = combine(member_scores([logits], info.members), info.combination)
        np.testing.assert_allclose(scores, alone)


@pytest.mark.parametrize("change", [{"split_fingerprint": "y"}, {"classes": ("b", "a")}], ids=["split", "classes"])
def test_members_of_another_split_are_refused(change):
    """What one member was tested on, the other may have learnt: refused, both named."""
    with pytest.raises(FingerprintMismatch, match="b and a have other classes or were trained on another split"):
        join_packages([package("a"), package("b", **change)])


def test_ensembles_of_ensembles_are_refused():
    """An ensemble is no member."""
    with pytest.raises(ConfigInvalid, match="b is an ensemble itself"):
        join_packages([package("a"), package("b", n_members=2)])


@pytest.mark.parametrize("n", [0, 1])
def test_one_model_is_no_ensemble(n):
    """Fewer than two packages are refused, with their number."""
    with pytest.raises(ConfigInvalid, match=f"at least two models; found {n}"):
        join_packages([package()] * n)


def test_an_unknown_rule_is_named_with_the_nearest():
    """A misspelt rule is refused before anything is loaded."""
    for rule in RULES:
        check_rule(rule)
    with pytest.raises(ConfigInvalid, match=r"'stack' to join models\. Did you mean 'stacking'"):
        check_rule("stack")
