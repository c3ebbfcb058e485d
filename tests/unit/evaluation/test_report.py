"""The text report holds every figure and says what its intervals mean."""

import dataclasses

import pytest

from medvision.evaluation.report import render_text


def test_holds_every_figure(evaluation):
    """Value, interval and counts of accuracy, sensitivity and specificity stand in the report."""
    text = render_text(evaluation)
    per_class = [figure for c in evaluation.per_class for figure in (c.sensitivity, c.specificity)]
    for figure in (evaluation.accuracy, *per_class):
        assert f"{figure.value:.3f}" in text
        assert f"{figure.low:.3f} - {figure.high:.3f}" in text
        assert f"{figure.successes} of {figure.n}" in text
    for c in evaluation.per_class:
        assert f"{c.auroc:.3f}" in text
    assert f"{evaluation.balanced_accuracy:.3f}" in text


def test_names_what_was_evaluated(evaluation):
    """Model, dataset and the fingerprints of package, split and predictions stand in the report."""
    text = render_text(evaluation)
    for value in ("resnet18", "phantom", "300 images, 100 patients", "a" * 64, "b" * 64, "c" * 64):
        assert value in text


@pytest.mark.parametrize(
    ("n_patients", "sentence"),
    [(None, "Patients are unknown"), (100, "Images of one patient resemble each other"), (300, None)],
)
def test_says_what_the_intervals_leave_out(evaluation, n_patients, sentence):
    """The report names the method, and where several images are of one patient, that the intervals are too narrow."""
    text = render_text(dataclasses.replace(evaluation, n_patients=n_patients))
    assert "Wilson" in text
    assert ("wider" in text) is (sentence is not None)
    assert sentence is None or sentence in text


def test_columns_are_aligned(evaluate, predictions):
    """Every row of the table of classes ends at the same column, however long the names are."""
    names = ["a", "a class with a long name", "medium"]
    lines = render_text(evaluate(*predictions(), names)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class "))
    assert len({len(line) for line in lines[start : start + 5]}) == 1


def test_missing_auroc_is_a_dash(evaluation):
    """A figure that has no value is shown as a dash."""
    assert "AUROC, macro one-vs-rest      -" in render_text(dataclasses.replace(evaluation, auroc=None))
