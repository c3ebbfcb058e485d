"""How many cases a policy needs, against scipy, statsmodels and the published table."""

import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint
from validation_cases import policy_with

from medvision.errors import ConfigInvalid
from medvision.evaluation.operating_point import patients_needed
from medvision.validation.power import (
    Counts,
    best_bound,
    cases_needed_at,
    evidence_size,
    find_unattainable,
)


@pytest.mark.parametrize("n", [1, 5, 19, 20, 42, 59, 300])
def test_best_bound_is_clopper_and_pearsons(n):
    """The bound of n cases, all right, is the one-sided Clopper-Pearson bound of scipy and of statsmodels."""
    exact = binomtest(n, n, alternative="greater").proportion_ci(0.95, method="exact").low
    two_sided, _ = proportion_confint(n, n, alpha=0.10, method="beta")
    assert best_bound(n) == pytest.approx(exact, abs=1e-12)
    assert best_bound(n) == pytest.approx(two_sided, abs=1e-12)


def test_no_case_shows_nothing():
    """Without a case the bound is 0."""
    assert best_bound(0) == 0


@pytest.mark.parametrize("minimum", [0.01, 0.5, 0.8, 0.85, 0.9, 0.95, 0.99])
def test_patients_needed_is_the_first_number(minimum):
    """So many cases show the minimum, one fewer does not."""
    n = patients_needed(minimum)
    assert best_bound(n) >= minimum > best_bound(n - 1)


def test_a_minimum_that_n_cases_show_exactly():
    """A minimum that is the very bound of n cases needs n of them, whatever the last digit of a logarithm."""
    assert [patients_needed(best_bound(n)) for n in range(1, 500)] == list(range(1, 500))


@pytest.mark.parametrize(
    ("minimum", "needed"),
    [(0.80, (14, 14, 22, 30)), (0.85, (19, 19, 40, 59)), (0.90, (29, 46, 89, 263)), (0.95, (59, 124, None, None))],
)
def test_the_table_of_power(minimum, needed):
    """At true sensitivities of 1, 0.98, 0.95 and 0.93 the numbers are those of the project's reference table."""
    assert tuple(cases_needed_at(value, minimum) for value in (1, 0.98, 0.95, 0.93)) == needed


COUNTS = Counts({"a": 10, "b": 30, "c": 60}, 100, "patients")


@pytest.mark.parametrize(
    ("figure", "of", "n"),
    [
        ("accuracy", None, 100),
        ("sensitivity", "a", 10),
        ("ppv", "a", 10),
        ("specificity", "a", 90),
        ("npv", "c", 40),
        ("auroc", "c", 40),
        ("auroc", "a", 10),
        ("balanced_accuracy", None, 10),
        ("sensitivity", "missing", 0),
    ],
)
def test_evidence_size(figure, of, n):
    """A figure rests on the cases that it is a share of, or on pairs of a case and another."""
    assert evidence_size(figure, COUNTS, of) == n


def test_patients_of_several_classes_are_counted_once():
    """Where patients have several classes those without a class are at most all of them."""
    assert evidence_size("specificity", Counts({"a": 50, "b": 50, "c": 50}, 60, "patients"), "a") == 60


def counts(per_class):
    """Return counts of images."""
    return Counts(per_class, sum(per_class.values()), "images")


def test_unattainable_rules_are_said():
    """A rule that no model can meet on the test split is named, with the number needed; others are not."""
    policy = policy_with("strict", bound={"sensitivity": 0.85, "accuracy": 0.85})
    (message,) = find_unattainable(policy, counts({"glioma": 12, "meningioma": 40}))
    assert message == (
        "Policy strict asks for a 95 % bound of 0.85 on the sensitivity of glioma: 12 glioma images can't show it, "
        "whatever the model. At least 19 are needed in the test split."
    )


def test_patients_count_where_they_are_known():
    """12 patients are too few for 0.85, and the message speaks of patients."""
    policy = policy_with(bound={"sensitivity": 0.85})
    (message,) = find_unattainable(policy, Counts({"a": 12, "b": 19}, 31, "patients"))
    assert "12 a patients" in message


def test_patients_of_two_classes_count_once_for_the_accuracy():
    """18 patients who all have images of both classes are 18, and too few for an accuracy of 0.85."""
    policy = policy_with(bound={"accuracy": 0.85})
    (message,) = find_unattainable(policy, Counts({"a": 18, "b": 18}, 18, "patients"))
    assert "18 patients can't show it" in message


@pytest.mark.parametrize("rules", [{"value": {"accuracy": 1.0, "sensitivity": 1.0}}, {"ceiling": {"ece": 0.01}}])
def test_values_and_errors_are_never_unattainable(rules):
    """A value can be reached on any number of cases, and an ECE has no bound that counts them."""
    assert find_unattainable(policy_with(**rules), counts({"a": 2, "b": 2})) == []


def test_a_bound_of_one_is_unattainable():
    """A bound of 1 can be shown by no number of cases, and the message does not name one."""
    (message,) = find_unattainable(policy_with(bound={"accuracy": 1.0}), counts({"a": 1000, "b": 1000}))
    assert "No number does" in message


def test_critical_classes_alone_need_cases():
    """A rule on critical classes asks for no cases of others; one on an unknown class is refused."""
    policy = policy_with(bound={"sensitivity": 0.85}, critical=["a"])
    assert find_unattainable(policy, counts({"a": 19, "b": 2})) == []
    with pytest.raises(ConfigInvalid):
        find_unattainable(policy, counts({"b": 19, "c": 2}))
