"""Say how patients might be told apart; nothing is applied unless the person asks for it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pipelines.console import say

if TYPE_CHECKING:
    from medvision.data.layout import Layout
    from medvision.data.patients import Suggestion
    from pipelines.dataset import SplitDataset


def suggest(layout: Layout, dataset: SplitDataset) -> list[Suggestion]:
    """Return what might tell patients apart, where nothing does yet."""
    from medvision.data.patients import suggest_patient_column, suggest_patient_pattern

    if dataset.manifest.knows_patients:
        return []
    columns = (
        suggest_patient_column(layout.files, layout.table, layout.columns)
        if layout.table is not None and layout.columns is not None
        else []
    )
    return [*columns, *suggest_patient_pattern(layout.files)]


def say_suggestions(suggestions: list[Suggestion]) -> None:
    """Print each suggestion with the grouping that it would give."""
    for suggestion in suggestions:
        say(f"  [patients] {describe(suggestion)}")
        for group in suggestion.examples:
            say(f"     together: {', '.join(group)}")
        say(f"     If that is right, add: {option(suggestion)}")


def describe(suggestion: Suggestion) -> str:
    """Return a suggestion in a sentence or two, without a file's name."""
    straddling = f", {suggestion.n_straddling:,} of them on several sides of the given split"
    return (
        f"{suggestion.reason} {suggestion.n_matched:,} of {suggestion.n_images:,} images would be in "
        f"{suggestion.n_groups:,} groups{straddling if suggestion.n_straddling else ''}; the largest has "
        f"{max(suggestion.sizes):,}. Not applied: only who knows the files can tell whether a group is a patient."
    )


def option(suggestion: Suggestion) -> str:
    """Return the option that would apply a suggestion."""
    if suggestion.setting == "dataset.patient_pattern":
        return f"--patient-pattern {shlex.quote(suggestion.value)}"
    return f"--set {shlex.quote(f'{suggestion.setting}={suggestion.value}')}"
