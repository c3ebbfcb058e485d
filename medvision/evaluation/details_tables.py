"""What was asked for beside the figures, as tables: for the text and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from medvision.evaluation.cross_validation import FIGURES
from medvision.evaluation.html_report import Table
from medvision.evaluation.robustness import SENSITIVITY
from medvision.evaluation.wording import label, shorten
from medvision.records import CrossValidation, Details, Diversity, Figure, Robustness, Subgroup

# Of five severities the middle one, and the worst.
_TOLD = (3, 5)


def describe_tables(details: Details) -> tuple[Table, ...]:
    """Return a table for each thing that was found out: subgroups, diversity, robustness, cross-validation."""
    return tuple(_tables(details))


def _tables(details: Details) -> Iterator[Table]:
    if details.subgroups:
        yield _subgroups(details.subgroups)
    if details.diversity:
        yield _diversity(details.diversity, details.disagreement_auroc)
    if details.robustness:
        yield _robustness(details.robustness)
        yield _falls(details.robustness)
    if details.cross_validation:
        yield _cross_validation(details.cross_validation)


def value(figure: Figure, digits: int = 3) -> str:
    """Return a figure's value as text."""
    return "-" if figure.value is None else f"{figure.value:.{digits}f}"


def interval(figure: Figure) -> str:
    """Return a figure's interval as text, nothing where it has none."""
    return "" if figure.low is None or figure.high is None else f"({figure.low:.3f} to {figure.high:.3f})"


def _subgroups(subgroups: tuple[Subgroup, ...]) -> Table:
    rows: list[tuple[str, ...]] = []
    for group in subgroups:
        patients = "-" if group.n_patients is None else str(group.n_patients)
        head = (f"{group.column} = {group.value}", str(group.n), patients)
        if group.overall is None:
            rows.append((*head, group.state, "", "", ""))
            continue
        gap = group.gaps.get("balanced_accuracy")
        rows.append(
            (
                *head,
                f"{value(group.overall.accuracy)} {interval(group.overall.accuracy)}",
                value(group.overall.balanced_accuracy),
                value(group.overall.auroc),
                "" if gap is None or gap.value is None else f"{gap.value:+.3f} {interval(gap)}",
            )
        )
    header = ("subgroup", "images", "patients", "accuracy", "balanced", "AUROC", "balanced, less the others")
    note = "Fewer than 30 patients give no figures. The last column is the subgroup less all other images."
    return Table("Subgroups", note, header, tuple(rows))


def _diversity(pairs: tuple[Diversity, ...], disagreement_auroc: float | None) -> Table:
    rows = [
        (
            f"{pair.a}, {pair.b}",
            "-" if pair.q_statistic is None else f"{pair.q_statistic:.3f}",
            f"{pair.disagreement:.3f}",
            f"{pair.double_fault:.3f}",
        )
        for pair in pairs
    ]
    note = "Q near 1: they are right and wrong together, and joining them helps little (Kuncheva and Whitaker 2003)."
    if disagreement_auroc is not None:
        note += f" How much all differ on an image tells wrong answers with an AUROC of {disagreement_auroc:.3f}."
    return Table("Diversity of the members", note, ("pair", "Q statistic", "disagreement", "both wrong"), tuple(rows))


def _robustness(robustness: Robustness) -> Table:
    name = "balanced_accuracy"
    kinds = list(dict.fromkeys(each.kind for each in robustness.corrupted))
    rows = [
        (kind, *(f"{each.values[name]:.3f}" for each in robustness.corrupted if each.kind == kind)) for kind in kinds
    ]
    note = (
        f"Balanced accuracy on {robustness.n} test images that were made worse, from hardly to grossly; as they are "
        f"{robustness.plain[name]:.3f}."
    )
    return Table("Robustness", note, ("severity", *"12345"), tuple(rows))


def _falls(robustness: Robustness) -> Table:
    by_case = {(each.kind, each.severity): each.falls for each in robustness.corrupted}
    severities = [severity for severity in _TOLD if any(severity == of for _, of in by_case)]
    rows = []
    for kind in dict.fromkeys(each.kind for each in robustness.corrupted):
        falls = [by_case.get((kind, severity), {}) for severity in severities]
        rows.append((kind, *map(_balanced_fall, falls), _worst_class(falls[-1] if falls else {})))
    note = "By how much the balanced accuracy falls, with its 95 % interval, and which class loses most sensitivity."
    header = ("fall at severity", *map(str, severities), "class that loses most")
    return Table("Robustness: falls", note, header, tuple(rows))


def _balanced_fall(falls: Mapping[str, Figure]) -> str:
    fall = falls.get("balanced_accuracy")
    return "-" if fall is None or fall.value is None else f"{fall.value:+.3f} {interval(fall)}".rstrip()


def _worst_class(falls: Mapping[str, Figure]) -> str:
    lost = {
        name.removeprefix(SENSITIVITY): fall.value
        for name, fall in falls.items()
        if name.startswith(SENSITIVITY) and fall.value is not None
    }
    if not lost:
        return "-"
    worst = max(lost, key=lost.__getitem__)
    return f"{shorten(worst, 24)} {lost[worst]:+.3f}"


def _cross_validation(validation: CrossValidation) -> Table:
    rows = [
        (
            label(name),
            f"{validation.means[name]:.3f}",
            f"{validation.deviations[name]:.3f}",
            value(getattr(validation.pooled.overall, name)),
            interval(getattr(validation.pooled.overall, name)),
        )
        for name in FIGURES
    ]
    by = "patient" if validation.pooled.n_patients is not None else "image, since patients are unknown"
    note = (
        f"{len(validation.folds)} folds of train and val, by {by}; each image was tested by a model that had not "
        "seen it."
    )
    header = ("", "mean of folds", "their deviation", "all together", "95 % interval")
    return Table("Cross-validation", note, header, tuple(rows))
