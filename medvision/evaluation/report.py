"""evaluation_report.txt: the figures of an Evaluation as a person reads them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import fields

from medvision.evaluation.figures import ERRORS
from medvision.evaluation.wording import describe_cases, label, rough_classes, shorten
from medvision.records import Evaluation, Figure, OverallFigures

# A line that is longer wraps in a terminal and in a mail.
_WIDTH = 120
_LONGEST = 20
_PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv")


def render_text(evaluation: Evaluation) -> str:
    """Return the report as aligned plain text, with the method of the intervals and what they leave out."""
    blocks = [
        _heading(evaluation),
        table(("", "value", "95 % interval", "95 % bound", "correct", "method"), _overall(evaluation), left=1),
        "Per class, each against all others: value (95 % interval) and one-sided 95 % bound",
        *(_classtable(evaluation, pair) for pair in (("sensitivity", "specificity"), ("ppv", "npv"))),
        *(_classtable(evaluation, figures) for figures in (("auroc", "auprc"), ("f1",))),
        _classtable(evaluation, ("calibration_slope", "calibration_intercept")),
        render_confusion(evaluation.classes, evaluation.confusion),
        _method(evaluation),
        _origin(evaluation),
    ]
    return "\n\n".join(blocks) + "\n"


def _heading(evaluation: Evaluation) -> str:
    title = f"Evaluation of {evaluation.model} on {evaluation.dataset}"
    return f"{title}\n{'=' * len(title)}\n{describe_cases(evaluation)}"


def _overall(evaluation: Evaluation) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for field in fields(OverallFigures):
        figure: Figure = getattr(evaluation.overall, field.name)
        bound = _bound(figure, is_error=field.name in ERRORS)
        rows.append((label(field.name), _number(figure.value), _interval(figure), bound, _count(figure), figure.method))
    return rows


def _classtable(evaluation: Evaluation, names: Sequence[str]) -> str:
    header, with_counts = ["class"], "f1" in names
    header += ["images", "patients"] if with_counts else []
    for name in names:
        header += [label(name), "bound", *(["cases"] if name in _PROPORTIONS else [])]
    rows = []
    for figures in evaluation.per_class:
        row = [shorten(figures.name, _LONGEST)]
        row += [str(figures.n), "-" if figures.n_patients is None else str(figures.n_patients)] if with_counts else []
        for name in names:
            figure: Figure = getattr(figures, name)
            interval = f" ({_interval(figure)})" if figure.low is not None else ""
            row += [f"{_number(figure.value)}{interval}", _bound(figure, is_error=name == "calibration_intercept")]
            row += [_count(figure)] if name in _PROPORTIONS else []
        rows.append(row)
    return table(header, rows)


def render_confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix as text."""
    longest = max(4, (_WIDTH - _LONGEST) // len(classes) - 2)
    header = ("", *(shorten(name, longest) for name in classes))
    rows = [(shorten(name, _LONGEST), *map(str, row)) for name, row in zip(classes, confusion, strict=True)]
    return "Confusion matrix (rows: truth, columns: prediction)\n\n" + table(header, rows)


def _method(evaluation: Evaluation) -> str:
    plan = evaluation.plan
    counted = _BY_IMAGE if evaluation.n_patients is None else _BY_PATIENT
    texts = counted.format(replicates=plan.replicates, seed=plan.seed), _LIMITS
    return "\n".join([*(textwrap.fill(text, _WIDTH - 10) for text in texts), *_warnings(evaluation)])


_BY_IMAGE = """\
Intervals count images, since patients are unknown: where several images are of one patient, the true intervals are \
wider. Proportions: Wilson, with Clopper-Pearson's one-sided bound; AUROC of a class: DeLong on the logit; other \
figures: the spread of {replicates} bootstrap draws of images, stratified by the true class, seed {seed}."""
_BY_PATIENT = """\
Intervals count patients, from the spread of {replicates} bootstrap draws of patients with all of their images, \
stratified by the patient's most frequent true class, seed {seed}; of proportions with fewer than 5 patients in error, \
Wilson on the patients. One-sided bounds of proportions: Clopper-Pearson on the number of cases that the images are \
worth given their patients, at most what the same patients would show if all were right."""
_LIMITS = """\
Bootstrap limits: Student's t on the logit, of Brier and NLL on the logarithm; where draws cannot vary, as of a \
faultless model, Wilson and Clopper-Pearson on the pairs of a case and a counter-case that can be formed. Calibration \
slope and intercept: Wald by the sandwich. AUROC and AUPRC are one-vs-rest, overall their mean, of two classes those \
of the second. ECE is biased upwards in small samples. PPV and NPV are those at the prevalence of this test split. No \
interval tells of other scanners, sites or populations, nor of errors in the reference standard."""


def _warnings(evaluation: Evaluation) -> list[str]:
    return [f"Only {n} with {shorten(name, 60)}: its intervals are rough." for name, n in rough_classes(evaluation)]


def _origin(evaluation: Evaluation) -> str:
    return table(
        ("made from", "fingerprint"),
        [
            ("model package", evaluation.package_digest),
            ("test split", evaluation.split_fingerprint),
            ("predictions", evaluation.predictions_sha256),
        ],
        left=2,
    )


def _number(value: float | None) -> str:
    # An intercept that nothing holds is in the thousands.
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.2g}"


def _interval(figure: Figure) -> str:
    return "-" if figure.low is None else f"{_number(figure.low)} to {_number(figure.high)}"


def _bound(figure: Figure, *, is_error: bool) -> str:
    return "-" if figure.bound is None else f"{'<=' if is_error else '>='} {_number(figure.bound)}"


def _count(figure: Figure) -> str:
    return "" if figure.successes is None else f"{figure.successes} of {figure.n}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table as text: the first ``left`` columns to the left, figures to the right, texts after them left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rules = ["-" * width for width in widths]
    lines = []
    for row in (header, rules, *rows):
        cells = [
            cell.ljust(width) if place < left or header[place] == "method" else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
