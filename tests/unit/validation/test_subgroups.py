"""What the policy asks of subgroups is measured on the cases in them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from validation_cases import policy_with, predictions_with

from medvision.validation.subgroups import measure_subgroups

FLOOR = {"columns": ["site"], "minimum": 0.8, "at_least": 30}


@pytest.fixture
def sites():
    """Return a column in which the first 40 cases of each class are of one site, and the others of another."""
    return {"site": pd.Series(np.where(np.arange(300) % 100 < 40, "north", "south"))}


def test_sensitivity_of_each_class_in_each_subgroup(sites):
    """Each site and class has the share of its own cases found, with the exact bound of that many."""
    found = measure_subgroups(
        predictions_with((30, 90, 90)), sites, policy_with(subgroup_floor={"figure": "sensitivity", **FLOOR})
    )
    by_name = {group.name: group for group in found}
    assert len(found) == 6
    north = by_name["site = north, glioma"]
    assert (north.n, north.figure.successes, north.figure.value) == (40, 30, 0.75)
    exact = binomtest(30, 40, alternative="greater").proportion_ci(0.95, method="exact").low
    assert north.figure.bound == pytest.approx(exact)
    assert by_name["site = south, glioma"].figure.value == 0


def test_critical_classes_alone(sites):
    """Where the policy lists critical classes the others are not measured."""
    policy = policy_with(critical=["pituitary"], subgroup_floor={"figure": "sensitivity", **FLOOR})
    found = measure_subgroups(predictions_with(), sites, policy)
    assert [group.name for group in found] == ["site = north, pituitary", "site = south, pituitary"]


@pytest.mark.parametrize(("figure", "n", "value"), [("accuracy", 120, 1.0), ("specificity", 80, 1.0)])
def test_other_figures(sites, figure, n, value):
    """Accuracy counts all cases of a subgroup, specificity those of other classes."""
    policy = policy_with(subgroup_floor={"figure": figure, **FLOOR}, critical=["glioma"])
    north = measure_subgroups(predictions_with(), sites, policy)[0]
    assert (north.n, north.figure.value) == (n, value)


def test_patients_are_counted_where_they_are_known(sites):
    """40 images of 20 patients are 20."""
    predictions = predictions_with(images_per_patient=2)
    policy = policy_with(subgroup_floor={"figure": "sensitivity", **FLOOR})
    assert measure_subgroups(predictions, sites, policy)[0].n == 20


def test_a_class_that_is_not_in_a_subgroup(sites):
    """A subgroup without a case of a class has no figure, and no number of cases."""
    predictions = dataclasses.replace(predictions_with(), y_true=np.repeat([0, 1, 1], 100))
    policy = policy_with(subgroup_floor={"figure": "sensitivity", **FLOOR}, critical=["pituitary"])
    group = measure_subgroups(predictions, sites, policy)[0]
    assert (group.n, group.figure.value) == (0, None)


def test_the_policy_names_the_columns(sites):
    """What the policy does not name is not judged, and what the dataset lacks has no figure."""
    policy = policy_with(subgroup_floor={"figure": "accuracy", **FLOOR, "columns": ["site", "sex"]})
    columns = {**sites, "scanner": sites["site"]}
    assert {group.column for group in measure_subgroups(predictions_with(), columns, policy)} == {"site"}


def test_no_floor_no_figures(sites):
    """A policy without a floor for subgroups asks for nothing."""
    assert measure_subgroups(predictions_with(), sites, policy_with()) == ()
