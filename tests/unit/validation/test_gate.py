"""The gate cannot be talked round: what is not shown to meet the policy fails."""

import dataclasses
import math

import numpy as np
import pytest

from medvision.errors import ConfigInvalid, FingerprintMismatch
from medvision.records import Verdict, load_record, record_fingerprint, save_record
from medvision.validation import gate
from medvision.validation.policy import ClassRules, Policy, policy_fingerprint

FULL = Policy(accuracy=0.85, sensitivity=0.85, balanced_accuracy=0.85, specificity=0.85, auroc=0.85)


def judge(evaluation, policy=FULL):
    return gate.judge(evaluation, policy, package_digest="a" * 64, split_fingerprint="b" * 64)


def with_value(figure, value):
    return dataclasses.replace(figure, value=value)


def failed(verdict):
    return {outcome.rule for outcome in verdict.outcomes if not outcome.passed}


def test_passes_what_meets_every_rule(evaluation_with):
    """A model that meets every rule passes, and every rule and class is listed."""
    verdict = judge(evaluation_with())
    names = [
        f"{rule}.{name}" for name in ("glioma", "meningioma", "pituitary") for rule in ("sensitivity", "specificity")
    ]
    assert [outcome.rule for outcome in verdict.outcomes] == ["accuracy", "balanced_accuracy", "auroc", *names]
    assert verdict.passed


def test_one_class_below_fails_the_model(evaluation_with):
    """One class below its sensitivity fails the model, whatever the accuracy, and every other rule is still listed."""
    verdict = judge(evaluation_with((84, 100, 100)), Policy())
    assert not verdict.passed
    assert failed(verdict) == {"sensitivity.glioma"}
    assert len(verdict.outcomes) == 4


def test_message_says_it_in_plain_words(evaluation_with):
    """The reason holds the figure, its interval, its counts and what was required."""
    outcome = judge(evaluation_with((21, 100, 100)), Policy()).outcomes[1]
    assert outcome.message == "sensitivity of glioma: 0.210 (95 % CI 0.14-0.30, 21 of 100) is below the required 0.850"
    assert (outcome.found, outcome.required) == (0.21, 0.85)


def test_equality_passes(evaluation_with):
    """A figure that equals its minimum exactly passes."""
    assert judge(evaluation_with((85, 85, 85)), Policy()).passed


def test_a_hair_below_fails_and_shows_it(evaluation_with):
    """A figure that would be rounded to its minimum fails, and the message shows the difference."""
    below = dataclasses.replace(evaluation_with(), balanced_accuracy=math.nextafter(0.85, 0))
    outcome = judge(below).outcomes[1]
    assert not outcome.passed
    assert "0.8499999999999999 is below the required 0.850" in outcome.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("figure", ["accuracy", "balanced_accuracy", "auroc"])
def test_a_figure_that_is_no_number_fails(evaluation_with, figure, value):
    """NaN, infinity or nothing in place of an overall figure fails its rule."""
    evaluation = evaluation_with()
    broken = with_value(evaluation.accuracy, value) if figure == "accuracy" else value
    outcomes = list(gate._overall(dataclasses.replace(evaluation, **{figure: broken}), FULL))
    outcome = next(outcome for outcome in outcomes if outcome.rule == figure)
    assert not outcome.passed
    assert outcome.found is None


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
@pytest.mark.parametrize("figure", ["sensitivity", "specificity"])
def test_a_class_figure_that_is_no_number_fails(evaluation_with, figure, value):
    """NaN, infinity or nothing in place of a class's figure fails its rule."""
    evaluation = evaluation_with()
    first = evaluation.per_class[0]
    broken = dataclasses.replace(first, **{figure: with_value(getattr(first, figure), value)})
    outcomes = gate._per_class(dataclasses.replace(evaluation, per_class=(broken, *evaluation.per_class[1:])), FULL)
    assert [outcome.rule for outcome in outcomes if not outcome.passed] == [f"{figure}.glioma"]


def test_a_missing_class_fails(evaluation_with):
    """A class without figures fails its rules."""
    evaluation = evaluation_with()
    verdict = judge(dataclasses.replace(evaluation, per_class=evaluation.per_class[1:]))
    assert failed(verdict) == {"sensitivity.glioma", "specificity.glioma"}


def test_an_evaluation_without_classes_fails(evaluation_with):
    """An evaluation that lists no class does not escape the rules of every class."""
    verdict = judge(dataclasses.replace(evaluation_with(), classes=(), per_class=()), Policy())
    assert failed(verdict) == {"sensitivity.every class"}


def test_missing_auroc_fails_only_where_it_is_asked_for(evaluation_with):
    """A missing figure fails a policy that names it and no other."""
    evaluation = dataclasses.replace(evaluation_with(), auroc=None)
    assert failed(judge(evaluation)) == {"auroc"}
    assert judge(evaluation, Policy()).passed


def test_class_minimum_replaces_that_of_every_class(evaluation_with):
    """A class with its own minimum is held against that one."""
    policy = Policy(classes={"glioma": ClassRules(sensitivity=0.95)})
    assert failed(judge(evaluation_with(), policy)) == {"sensitivity.glioma"}


def test_unknown_class_in_the_policy(evaluation_with):
    """A policy for a class that the model lacks is refused, not skipped."""
    with pytest.raises(ConfigInvalid, match="Did you mean 'glioma'"):
        judge(evaluation_with(), Policy(classes={"glyoma": ClassRules(sensitivity=0.95)}))


@pytest.mark.parametrize("other", [{"digest": "d" * 64}, {"split": "d" * 64}])
def test_evidence_of_something_else_is_refused(evaluation_with, other):
    """An evaluation of another package, or of another split, is refused with the step to run."""
    with pytest.raises(FingerprintMismatch, match="Run evaluate again"):
        judge(evaluation_with(**other))


def test_verdict_is_bound_to_what_it_judged(evaluation_with, tmp_path):
    """The verdict carries the fingerprints of package, split, policy and evaluation, and survives JSON."""
    evaluation = evaluation_with()
    verdict = judge(evaluation)
    assert (verdict.package_digest, verdict.split_fingerprint) == ("a" * 64, "b" * 64)
    assert verdict.policy_fingerprint == policy_fingerprint(FULL)
    assert verdict.evaluation_fingerprint == record_fingerprint(evaluation)
    save_record(verdict, tmp_path / "verdict.json")
    assert load_record(Verdict, tmp_path / "verdict.json") == verdict


def test_lowering_a_figure_never_helps(evaluation_with):
    """Whatever the figures, lowering one of them never turns a failed rule, or a failed model, into a passed one."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        evaluation = evaluation_with(tuple(rng.integers(80, 95, 3)))
        before = judge(evaluation)
        for lower in _lowered(evaluation, rng):
            after = judge(lower)
            assert failed(before) <= failed(after)
            assert before.passed or not after.passed


def _lowered(evaluation, rng):
    for name in ("balanced_accuracy", "auroc"):
        yield dataclasses.replace(evaluation, **{name: getattr(evaluation, name) * rng.random()})
    accuracy = with_value(evaluation.accuracy, evaluation.accuracy.value * rng.random())
    yield dataclasses.replace(evaluation, accuracy=accuracy)
    for c, figures in enumerate(evaluation.per_class):
        for name in ("sensitivity", "specificity"):
            figure = getattr(figures, name)
            worse = dataclasses.replace(figures, **{name: with_value(figure, figure.value * rng.random())})
            per_class = tuple(worse if i == c else other for i, other in enumerate(evaluation.per_class))
            yield dataclasses.replace(evaluation, per_class=per_class)


def test_text_lists_every_reason(evaluation_with):
    """The text says the decision first, then every rule, failed or passed, and what it was made from."""
    verdict = judge(evaluation_with((21, 100, 100)))
    text = gate.render_text(verdict)
    assert text.startswith(f"resnet18: FAILED, {len(failed(verdict))} of 9 rules are not met")
    assert all(outcome.message in text for outcome in verdict.outcomes)
    assert verdict.policy_fingerprint in text
    assert gate.render_text(judge(evaluation_with())).startswith("resnet18: PASSED, every rule is met")
