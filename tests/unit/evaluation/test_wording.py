"""Every report has the same words for the same thing."""

from dataclasses import replace

import pytest

from medvision.evaluation.figures import OVERALL, PER_CLASS
from medvision.evaluation.wording import describe_cases, describe_looks, heading, label, rough_classes, shorten


@pytest.mark.parametrize(
    ("name", "called"),
    [("balanced_accuracy", "balanced accuracy"), ("ece", "ECE"), ("macro_f1", "macro F1"), ("npv", "NPV")],
)
def test_labels(name, called):
    """Abbreviations are written as such, other names without underscores."""
    assert label(name) == called


@pytest.mark.parametrize("name", [*OVERALL, *PER_CLASS])
def test_headings_begin_with_a_capital(name):
    """A heading is the label with its first letter large."""
    assert heading(name)[0].isupper()
    assert heading(name)[1:] == label(name)[1:]


def test_cases_are_counted_once_and_many_times(evaluation):
    """One is one image and one patient; unknown patients are said to be."""
    assert describe_cases(evaluation) == "test split, 300 images, 100 patients"
    assert describe_cases(replace(evaluation, n=1, n_patients=1)) == "test split, 1 image, 1 patient"
    assert describe_cases(replace(evaluation, n_patients=None)).endswith("patients unknown")


def test_looks():
    """One time is singular."""
    assert describe_looks(1) == "This test set has been looked at 1 time."
    assert describe_looks(3) == "This test set has been looked at 3 times."


def test_classes_of_few_patients_are_rough(evaluation):
    """Below 20 patients a class is named with their number, or with that of its images."""
    rare, *others = evaluation.per_class
    few = replace(evaluation, per_class=(replace(rare, n_patients=19), *others))
    assert rough_classes(few) == [(rare.name, "19 patients")]
    images = tuple(replace(each, n=1 if each is rare else each.n, n_patients=None) for each in evaluation.per_class)
    assert rough_classes(replace(evaluation, n_patients=None, per_class=images)) == [(rare.name, "1 image")]


def test_long_texts_are_shortened():
    """Nothing is longer than it may be, and what was cut says so."""
    assert shorten("glioma", 6) == "glioma"
    assert shorten("meningioma", 6) == "menin…"
