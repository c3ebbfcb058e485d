"""The text report holds every figure and says what its intervals mean."""

import dataclasses

import numpy as np
import pytest

from medvision.evaluation.report import render_text


def figures_of(record):
    """Return the figures of OverallFigures or ClassFigures."""
    names = (field.name for field in dataclasses.fields(record))
    return [getattr(record, name) for name in names if name not in ("name", "n", "n_patients")]


def test_holds_every_figure(evaluation):
    """Value, interval, bound and counts of every figure stand in the report."""
    text = render_text(evaluation)
    for owner in (evaluation.overall, *evaluation.per_class):
        for figure in figures_of(owner):
            assert f"{figure.value:.3f}" in text
            assert f"{figure.low:.3f} to {figure.high:.3f}" in text
            assert f"= {figure.bound:.3f}" in text
            assert figure.successes is None or f"{figure.successes} of {figure.n}" in text
    assert all(figure.method in text for figure in figures_of(evaluation.overall))


def test_names_what_was_evaluated(evaluation):
    """Model, dataset and the fingerprints of package, split and predictions stand in the report."""
    text = render_text(evaluation)
    for value in ("resnet18", "phantom", "300 images, 100 patients", "a" * 64, "b" * 64, "c" * 64):
        assert value in text


@pytest.mark.parametrize(
    ("groups", "counted"),
    [(None, "Intervals count images, since patients are unknown"), (np.arange(300) // 3, "Intervals count patients")],
)
def test_says_what_is_counted(predictions, evaluate, groups, counted):
    """The report says whether patients or images are counted, by what draws are stratified, and the seed."""
    text = " ".join(render_text(evaluate(*predictions(), groups=groups)).split())
    assert counted in text
    assert ("the true intervals are wider" in text) is (groups is None)
    assert "stratified by the" in text and "seed 42" in text and "200 bootstrap draws" in text
    assert "Nothing" not in text and "other scanners" in text


def test_few_patients_are_named(predictions, evaluate):
    """A class of fewer than 20 patients is named, with their number."""
    text = render_text(evaluate(*predictions(n=60), groups=np.arange(60) // 6))
    assert "patients with glioma: its intervals are rough." in text
    assert "rough" not in render_text(evaluate(*predictions(), groups=np.arange(300) // 3))


@pytest.mark.parametrize("k", [2, 3, 9])
@pytest.mark.parametrize("groups", [None, np.arange(600) // 2], ids=["images", "patients"])
def test_lines_fit(predictions, evaluate, k, groups):
    """No line is longer than 120 characters, however long the names of classes are."""
    names = [f"a class whose name does not end before number {c}" for c in range(k)]
    assert max(map(len, render_text(evaluate(*predictions(n=600, k=k), names, groups)).splitlines())) <= 120


def test_columns_are_aligned(evaluate, predictions):
    """Every row of a table of classes ends at the same column, however long the names are."""
    names = ["a", "a class with a long name", "medium"]
    lines = render_text(evaluate(*predictions(), names)).splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("class ")]
    assert len(starts) == 5
    assert all(len({len(line) for line in lines[start : start + 5]}) == 1 for start in starts)


def test_what_has_no_value_is_a_dash(predictions, evaluate):
    """A figure that is not defined is shown as a dash, in value and bound."""
    y_true, y_score = predictions()
    y_score = y_score * np.array([1e-3, 1, 1])
    text = render_text(evaluate(y_true, y_score / y_score.sum(axis=1, keepdims=True)))
    ppv = next(part for part in text.split("\n\n") if part.startswith("class") and "PPV" in part)
    assert next(line for line in ppv.splitlines() if line.startswith("glioma")).split()[1:3] == ["-", "-"]
