"""The gate cannot be talked round: what is not shown to meet the policy fails."""

import dataclasses
import math

import numpy as np
import pytest
from validation_cases import CLASSES, audit_with, evaluation_with, evidence_with, policy_with

from medvision.errors import ConfigInvalid
from medvision.records import Figure, Verdict, load_record, save_record
from medvision.validation import gate
from medvision.validation.evidence import AgainstChampion, Objection, SubgroupFigure
from medvision.validation.gate import evaluation_fingerprint

NON_INFERIORITY = "non_inferiority.balanced_accuracy"
EVERYTHING = {
    "value": {"accuracy": 0.85, "sensitivity": 0.85, "balanced_accuracy": 0.85, "auroc": 0.85},
    "bound": {"accuracy": 0.8, "sensitivity": 0.8, "specificity": 0.8},
    "ceiling": {"brier": 0.5},
    "non_inferiority": {"figure": "balanced_accuracy", "margin": 0.03},
    "subgroup_floor": {"columns": ["site"], "figure": "sensitivity", "minimum": 0.8, "at_least": 30},
    "latency_p95_ms": 100,
    "audit": "clean-or-handled",
}


def judge(evaluation, evidence=None, **rules):
    return gate.judge(evaluation, policy_with(**rules), evidence or evidence_with())


def outcome_of(verdict, rule):
    (found,) = (outcome for outcome in verdict.outcomes if outcome.rule == rule)
    return found


def failed(verdict):
    return {outcome.rule for outcome in verdict.outcomes if outcome.state == "failed"}


def not_passed(verdict):
    return {outcome.rule for outcome in verdict.outcomes if not outcome.passed}


def with_figure(evaluation, name, of=None, **values):
    """Return an evaluation with other numbers in one figure, of a class or of all."""
    if of is None:
        changed = dataclasses.replace(getattr(evaluation.overall, name), **values)
        return dataclasses.replace(evaluation, overall=dataclasses.replace(evaluation.overall, **{name: changed}))
    per_class = tuple(
        dataclasses.replace(c, **{name: dataclasses.replace(getattr(c, name), **values)}) if c.name == of else c
        for c in evaluation.per_class
    )
    return dataclasses.replace(evaluation, per_class=per_class)


def test_passes_what_meets_every_rule():
    """A model that meets every rule passes, and every rule and class is listed with what was required and found."""
    verdict = judge(evaluation_with(), **EVERYTHING)
    expected = {
        "value.accuracy",
        "value.balanced_accuracy",
        "bound.accuracy",
        "ceiling.brier",
        "latency_p95_ms",
        "audit",
    }
    expected |= {f"value.{name}.{of}" for name in ("sensitivity", "auroc") for of in CLASSES}
    expected |= {f"bound.{name}.{of}" for name in ("sensitivity", "specificity") for of in CLASSES}
    expected |= {NON_INFERIORITY, "subgroup_floor.sensitivity.site = north, glioma"}
    assert {outcome.rule for outcome in verdict.outcomes} == expected
    assert verdict.state == "passed" and verdict.passed
    assert not any(outcome.remedy for outcome in verdict.outcomes)


def test_one_class_below_fails_the_model():
    """One class below its sensitivity fails the model, whatever the accuracy, and every other rule is still listed."""
    verdict = judge(evaluation_with((84, 100, 100)), value={"accuracy": 0.85, "sensitivity": 0.85})
    assert verdict.state == "failed"
    assert failed(verdict) == {"value.sensitivity.glioma"}
    assert len(verdict.outcomes) == 4


def test_a_reason_in_plain_words():
    """The reason holds the figure, its interval, its counts and what was required; the remedy, how many are missing."""
    verdict = judge(evaluation_with((21, 100, 100)), value={"sensitivity": 0.85})
    outcome = outcome_of(verdict, "value.sensitivity.glioma")
    assert outcome.message == "sensitivity of glioma: 0.210 (95 % CI 0.14-0.30, 21 of 100) is below the required 0.850"
    assert (outcome.found, outcome.required) == (0.21, 0.85)
    assert (outcome.low, outcome.high) == (pytest.approx(0.142, abs=1e-3), pytest.approx(0.300, abs=1e-3))
    assert outcome.remedy.startswith("64 more of these 100 test images must be right")


def test_equality_passes():
    """A figure that equals its minimum exactly passes."""
    assert judge(evaluation_with((85, 85, 85)), value={"accuracy": 0.85, "sensitivity": 0.85}).passed


def test_a_hair_below_fails_and_shows_it():
    """A figure that would be rounded to its minimum fails, and the message shows the difference."""
    below = with_figure(evaluation_with(), "balanced_accuracy", value=math.nextafter(0.85, 0))
    outcome = outcome_of(judge(below, value={"balanced_accuracy": 0.85}), "value.balanced_accuracy")
    assert not outcome.passed
    assert "0.8499999999999999" in outcome.message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["value", "low", "high", "bound"])
@pytest.mark.parametrize(
    ("name", "of", "rules"),
    [
        ("accuracy", None, {"value.accuracy", "bound.accuracy"}),
        ("balanced_accuracy", None, {"value.balanced_accuracy"}),
        ("brier", None, {"ceiling.brier"}),
        ("sensitivity", "glioma", {"value.sensitivity.glioma", "bound.sensitivity.glioma"}),
        ("specificity", "glioma", {"bound.specificity.glioma"}),
        ("auroc", "pituitary", {"value.auroc.pituitary"}),
    ],
)
def test_a_figure_that_is_no_number_fails(name, of, rules, field, number):
    """NaN or infinity in any field of a figure fails its rules and no other, and the verdict can still be written."""
    verdict = judge(with_figure(evaluation_with(), name, of, **{field: number}), **EVERYTHING)
    assert failed(verdict) == rules
    assert verdict.state == "failed"
    assert all(outcome_of(verdict, rule).found is None for rule in rules)


@pytest.mark.parametrize("missing", [{"value": None}, {"bound": None}, {"value": None, "bound": None}])
def test_a_figure_that_is_missing_fails(missing):
    """None in place of a value, or of the bound that a rule is about, fails the rule."""
    evaluation = with_figure(evaluation_with(), "sensitivity", "glioma", **missing)
    assert "bound.sensitivity.glioma" in failed(judge(evaluation, **EVERYTHING))


def test_a_figure_that_no_share_can_be_fails():
    """A value or a bound above 1 fails: whoever wrote it did not count."""
    for field in ("value", "bound"):
        evaluation = with_figure(evaluation_with(), "accuracy", **{field: 1.1})
        assert f"{field}.accuracy" in failed(judge(evaluation, **EVERYTHING))


def test_a_missing_class_fails():
    """A class without figures fails its rules."""
    evaluation = evaluation_with()
    verdict = judge(dataclasses.replace(evaluation, per_class=evaluation.per_class[1:]), value={"sensitivity": 0.8})
    assert failed(verdict) == {"value.sensitivity.glioma"}


def test_an_evaluation_without_classes_fails():
    """An evaluation that lists no class does not escape the rules of every class."""
    verdict = judge(dataclasses.replace(evaluation_with(), classes=(), per_class=()))
    assert failed(verdict) == {"value.sensitivity.every class"}


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        ({"latency_p95_ms": None}, "latency_p95_ms"),
        ({"latency_p95_ms": math.nan}, "latency_p95_ms"),
        ({"latency_p95_ms": -1.0}, "latency_p95_ms"),
        ({"latency_p95_ms": 100.5}, "latency_p95_ms"),
        ({"audit": None}, "audit"),
        ({"audit": audit_with(split="9" * 64)}, "audit"),
        ({"audit": audit_with("error")}, "audit"),
        ({"audit": audit_with("a severity of tomorrow")}, "audit"),
        ({"comparison": None}, NON_INFERIORITY),
        ({"comparison": AgainstChampion("f" * 64, None)}, NON_INFERIORITY),
        ({"comparison": AgainstChampion("f" * 64, Figure(0.0, None, None, math.nan, 9, ""))}, NON_INFERIORITY),
        ({"comparison": AgainstChampion("f" * 64, Figure(0.0, -0.1, 0.1, -0.03, 9, ""))}, NON_INFERIORITY),
        ({"subgroups": None}, "subgroup_floor.sensitivity"),
    ],
)  # fmt: skip
def test_evidence_that_is_missing_or_bad_fails(part, rule):
    """What the policy asks for and nobody measured fails, as does what is too slow, worse, unknown or of other data."""
    verdict = judge(evaluation_with(), evidence_with(**part), **EVERYTHING)
    assert failed(verdict) == {rule}
    assert outcome_of(verdict, rule).remedy
    # Where it is not asked for, nothing is said of it.
    assert judge(evaluation_with(), evidence_with(**part)).passed


def test_no_champion_is_no_obstacle():
    """Where the registry has no champion the rule passes, and says so."""
    verdict = judge(evaluation_with(), evidence_with(comparison=AgainstChampion(None, None)), **EVERYTHING)
    assert verdict.passed and verdict.champion_digest is None
    assert "no champion" in outcome_of(verdict, NON_INFERIORITY).message


@pytest.mark.parametrize(
    ("severity", "handled", "clean"),
    [("note", True, True), ("leak", True, False), ("warning", True, False), ("error", False, False)],
)
def test_audit_states(severity, handled, clean):
    """Clean tolerates notes alone; clean-or-handled also what medvision left out or warned of, and no error."""
    evidence = evidence_with(audit=audit_with(severity))
    assert judge(evaluation_with(), evidence, audit="clean-or-handled").passed == handled
    assert judge(evaluation_with(), evidence, audit="clean").passed == clean


def test_a_small_subgroup_is_listed_and_not_judged():
    """A subgroup of fewer cases than the policy names is not judged, and is listed; one that is large enough fails."""
    bad = Figure(0.5, 0.3, 0.7, 0.35, 29, "Wilson", 15)
    rules = {"subgroup_floor": {"columns": ["sex"], "figure": "sensitivity", "minimum": 0.8, "at_least": 30}}
    small = judge(evaluation_with(), evidence_with(subgroups=(SubgroupFigure("sex", "sex = f", 29, bad),)), **rules)
    assert small.passed
    assert "sex = f (29)" in outcome_of(small, "subgroup_floor.sensitivity.not assessed").message
    large = judge(evaluation_with(), evidence_with(subgroups=(SubgroupFigure("sex", "sex = f", 30, bad),)), **rules)
    assert failed(large) == {"subgroup_floor.sensitivity.sex = f"}


def test_a_column_that_the_dataset_lacks():
    """A floor by a column that the dataset lacks fails, and says so; those of other columns are still held."""
    floor = {"columns": ["site", "sex"], "figure": "sensitivity", "minimum": 0.8}
    verdict = judge(evaluation_with(), subgroup_floor=floor)
    assert failed(verdict) == {"subgroup_floor.sensitivity.sex"}
    assert "the dataset has no column 'sex'" in outcome_of(verdict, "subgroup_floor.sensitivity.sex").message
    assert outcome_of(verdict, "subgroup_floor.sensitivity.site = north, glioma").passed


def test_a_champion_that_cannot_be_compared():
    """Where candidate and champion have nothing in common the rule fails, with the reason and what to do."""
    obstacle = Objection("classes", "the champion tells a, b apart", "Train on it.")
    evidence = evidence_with(comparison=AgainstChampion("f" * 64, None, obstacle))
    outcome = outcome_of(judge(evaluation_with(), evidence, **EVERYTHING), NON_INFERIORITY)
    assert outcome.state == "failed"
    assert outcome.message.endswith("the champion tells a, b apart")
    assert outcome.remedy == "Train on it."


def test_only_what_is_not_there_is_missing():
    """A figure that is there and no number is shown; one that is not there is missing, with the reason of it."""
    unsound = with_figure(evaluation_with(), "sensitivity", "glioma", value=math.nan)
    outcome = outcome_of(judge(unsound, bound={"sensitivity": 0.8}), "bound.sensitivity.glioma")
    assert "value nan" in outcome.message
    assert "missing" not in outcome.message + outcome.remedy
    absent = with_figure(evaluation_with(), "brier", bound=None, method="no interval: no variation")
    outcome = outcome_of(judge(absent, ceiling={"brier": 0.5}), "ceiling.brier")
    assert "missing (no interval: no variation)" in outcome.message


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        (["note"], "nothing was found that had to be handled"),
        (["leak", "note"], "1 finding, handled"),
        (["leak", "warning", "leak"], "3 findings, all handled"),
    ],
)
def test_what_an_audit_has_found_is_counted(severities, said):
    """The line of a clean audit says how many findings were handled; notes are none."""
    verdict = judge(evaluation_with(), evidence_with(audit=audit_with(*severities)), audit="clean-or-handled")
    assert outcome_of(verdict, "audit").message == f"audit: {said}"


def test_mistakes_are_looked_at_on_val():
    """No remedy sends people to the mistakes on test, by which a model must not be mended."""
    verdict = judge(evaluation_with((21, 100, 100)), value={"sensitivity": 0.85})
    assert "look at the mistakes on val" in outcome_of(verdict, "value.sensitivity.glioma").remedy


def test_too_few_cases_are_insufficient_evidence():
    """Where a perfect model could not show the bound the verdict is insufficient evidence, with the number needed."""
    verdict = judge(evaluation_with((12, 12, 12), n=12), bound={"sensitivity": 0.85})
    assert verdict.state == "insufficient_evidence" and not verdict.passed
    outcome = outcome_of(verdict, "bound.sensitivity.glioma")
    assert outcome.message.endswith("12 images show 0.779 at most")
    assert outcome.remedy.startswith("7 more glioma images in the test split would let a perfect model pass")


def test_patients_are_what_is_counted():
    """36 images of 12 patients are 12 cases, and the remedy speaks of patients."""
    verdict = judge(evaluation_with((36, 36, 36), n=36, images_per_patient=3), bound={"sensitivity": 0.85})
    assert verdict.state == "insufficient_evidence"
    assert "7 more glioma patients" in outcome_of(verdict, "bound.sensitivity.glioma").remedy


def test_the_first_number_that_is_enough():
    """18 cases without a mistake do not show 0.85, 19 do."""
    states = {n: judge(evaluation_with((n, n, n), n=n), bound={"sensitivity": 0.85}).state for n in (18, 19)}
    assert states == {18: "insufficient_evidence", 19: "passed"}


@pytest.mark.parametrize(
    ("found", "n", "state"),
    [(12, 12, "insufficient_evidence"), (11, 12, "insufficient_evidence"), (10, 12, "failed"), (100, 100, "passed")],
)
def test_a_ceiling_that_few_cases_cannot_show(found, n, state):
    """An ECE is insufficient evidence where no model could show the ceiling and the value is within it."""
    verdict = judge(evaluation_with((found,) * 3, n=n), ceiling={"ece": 0.1})
    outcome = outcome_of(verdict, "ceiling.ece")
    assert outcome.state == state
    assert ("17 more images of the rarest class" in outcome.remedy) == (state == "insufficient_evidence")


def test_few_cases_can_still_fail():
    """Few cases that speak against the model are a failure, and no want of evidence."""
    verdict = judge(evaluation_with((3, 12, 12), n=12), bound={"sensitivity": 0.85})
    assert outcome_of(verdict, "bound.sensitivity.glioma").state == "failed"


def test_failure_outranks_insufficient_evidence():
    """A model that fails one rule is failed, whatever else could not be shown."""
    verdict = judge(evaluation_with((12, 12, 12), n=12), evidence_with(latency_p95_ms=500.0),
                    bound={"sensitivity": 0.85}, latency_p95_ms=100)  # fmt: skip
    assert verdict.state == "failed"
    assert {outcome.state for outcome in verdict.outcomes} == {"passed", "failed", "insufficient_evidence"}


def test_only_bounds_can_lack_evidence():
    """A value, a latency or an audit is met or not, on however few cases."""
    verdict = judge(evaluation_with((1, 2, 2), n=2), evidence_with(latency_p95_ms=500.0), latency_p95_ms=100,
                    value={"sensitivity": 0.9})  # fmt: skip
    assert {outcome.state for outcome in verdict.outcomes} == {"passed", "failed"}


def test_a_bound_that_more_cases_would_show():
    """The remedy of a bound says how many more cases would show it at the present value, or that none would."""
    enough = judge(evaluation_with((93, 93, 93)), bound={"sensitivity": 0.9})
    assert "About 163 more glioma images" in outcome_of(enough, "bound.sensitivity.glioma").remedy
    never = judge(evaluation_with((88, 93, 93)), bound={"sensitivity": 0.9})
    assert "More test cases would not show it" in outcome_of(never, "bound.sensitivity.glioma").remedy


def test_an_objection_fails_the_model():
    """Evidence that was touched fails a model that meets every rule, and the objection comes first."""
    evidence = evidence_with(objections=(Objection("metrics", "accuracy was edited", "Run evaluate."),))
    verdict = judge(evaluation_with(), evidence)
    assert failed(verdict) == {"evidence.metrics"}
    assert verdict.outcomes[0].message == "accuracy was edited"


def test_nothing_judged_is_not_passed():
    """Without a single outcome the state is failed."""
    assert gate._decide([]) == "failed"


def test_class_minimum_replaces_that_of_every_class():
    """A class with its own minimum is held against that one."""
    verdict = judge(
        evaluation_with(), value={"sensitivity": 0.85}, classes={"glioma": {"value": {"sensitivity": 0.95}}}
    )
    assert failed(verdict) == {"value.sensitivity.glioma"}


def test_critical_classes_alone():
    """A policy that lists critical classes asks nothing of the others."""
    assert judge(evaluation_with((90, 50, 90)), value={"sensitivity": 0.85}, critical=["glioma"]).passed
    assert not judge(evaluation_with((50, 90, 90)), value={"sensitivity": 0.85}, critical=["glioma"]).passed


@pytest.mark.parametrize("rules", [{"critical": ["glyoma"]}, {"classes": {"glyoma": {}}}])
def test_unknown_class_in_the_policy(rules):
    """A policy for a class that the model lacks is refused, not skipped."""
    with pytest.raises(ConfigInvalid, match="Did you mean 'glioma'"):
        judge(evaluation_with(), **rules)


@pytest.mark.parametrize(
    ("found", "grade"),
    [((90, 90, 90), "excellent"), ((89, 90, 90), "good"), ((85, 85, 85), "good"), ((84, 85, 85), "needs improvement")],
)
def test_grades(found, grade):
    """Excellent from 0.90, good from 0.85, and below it needs improvement."""
    assert judge(evaluation_with(found)).grade == grade


def test_a_failed_model_has_no_kind_word():
    """A model that fails needs improvement, however high its accuracy."""
    assert judge(evaluation_with((100, 100, 100)), evidence_with(latency_p95_ms=500.0), latency_p95_ms=1).grade == (
        "needs improvement"
    )


def test_verdict_is_bound_to_what_it_judged(tmp_path):
    """The verdict names package, splits, policy, evaluation, predictions, champion and ledger, and survives JSON."""
    evaluation, policy = evaluation_with(), policy_with(**EVERYTHING)
    verdict = gate.judge(evaluation, policy, evidence_with())
    named = (verdict.package_digest, verdict.split_fingerprint, verdict.predictions_sha256, verdict.test_fingerprint)
    assert named == ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
    assert (verdict.ledger_head, verdict.champion_digest) == ("e" * 64, "f" * 64)
    assert (verdict.policy, verdict.policy_fingerprint) == ("mine", policy.fingerprint)
    assert verdict.evaluation_fingerprint == evaluation_fingerprint(evaluation)
    assert (verdict.looks, verdict.models_seen, verdict.made_at) == (3, 2, "2026-11-21T12:00:00+00:00")
    assert verdict.figures["accuracy"] == 0.9 and verdict.figures["sensitivity.glioma"] == 0.9
    save_record(verdict, tmp_path / "verdict.json")
    assert load_record(Verdict, tmp_path / "verdict.json") == verdict


def test_fingerprint_of_an_evaluation_tells_figures_apart():
    """The eighth digit of any figure changes the fingerprint; the last, in which processors differ, does not."""
    evaluation = evaluation_with()
    whole = evaluation_fingerprint(evaluation)
    assert evaluation_fingerprint(with_figure(evaluation, "ece", value=0.10000001)) != whole
    last = with_figure(evaluation, "accuracy", value=math.nextafter(evaluation.overall.accuracy.value, 0))
    assert evaluation_fingerprint(last) == whole


def test_lowering_a_figure_never_helps():
    """Whatever the figures, lowering one of them never mends a rule or a model that was not passed."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        evaluation = evaluation_with(tuple(rng.integers(80, 95, 3)))
        before = judge(evaluation, **EVERYTHING)
        for lower in _lowered(evaluation, rng):
            after = judge(lower, **EVERYTHING)
            assert not_passed(before) <= not_passed(after)
            assert before.passed or not after.passed


def _lowered(evaluation, rng):
    for name, of in [("accuracy", None), ("balanced_accuracy", None)] + [
        (name, of) for name in ("sensitivity", "specificity", "auroc") for of in CLASSES
    ]:
        figures = evaluation.overall if of is None else next(c for c in evaluation.per_class if c.name == of)
        figure, factor = getattr(figures, name), rng.random()
        numbers = {field: getattr(figure, field) * factor for field in ("value", "low", "high", "bound")}
        yield with_figure(evaluation, name, of, **numbers)
