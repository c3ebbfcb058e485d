"""evaluation_report.txt: the figures of an Evaluation as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from medvision.records import Evaluation, Proportion


def render_text(evaluation: Evaluation) -> str:
    """Return the report as aligned plain text, with the method of the intervals and what they leave out."""
    blocks = [
        _heading(evaluation),
        _table(("", "value", "95 % interval", "correct"), _overall(evaluation)),
        "Per class, each against all others\n\n" + _table(_CLASS_HEADER, _per_class(evaluation)),
        "Confusion matrix (rows: truth, columns: prediction)\n\n"
        + _table(("", *evaluation.classes), _confusion(evaluation)),
        _method(evaluation),
        _origin(evaluation),
    ]
    return "\n\n".join(blocks) + "\n"


_CLASS_HEADER = (
    "class", "n", "sensitivity", "95 % interval", "found", "specificity", "95 % interval", "ruled out", "AUROC",
)  # fmt: skip


def _heading(evaluation: Evaluation) -> str:
    patients = "patients unknown" if evaluation.n_patients is None else f"{evaluation.n_patients} patients"
    title = f"Evaluation of {evaluation.model} on {evaluation.dataset}"
    return f"{title}\n{'=' * len(title)}\ntest split: {evaluation.n} images, {patients}"


def _overall(evaluation: Evaluation) -> list[Sequence[str]]:
    auroc = f"AUROC of {evaluation.classes[1]}" if len(evaluation.classes) == 2 else "AUROC, macro one-vs-rest"
    return [
        ("accuracy", *_proportion(evaluation.accuracy)),
        ("balanced accuracy", f"{evaluation.balanced_accuracy:.3f}", "", ""),
        (auroc, _number(evaluation.auroc), "", ""),
    ]


def _per_class(evaluation: Evaluation) -> list[Sequence[str]]:
    return [
        (
            figures.name,
            str(figures.n),
            *_proportion(figures.sensitivity),
            *_proportion(figures.specificity),
            _number(figures.auroc),
        )
        for figures in evaluation.per_class
    ]


def _confusion(evaluation: Evaluation) -> list[Sequence[str]]:
    return [(name, *map(str, row)) for name, row in zip(evaluation.classes, evaluation.confusion, strict=True)]


def _method(evaluation: Evaluation) -> str:
    text = "Intervals: Wilson score, two-sided 95 % (Wilson 1927)."
    if evaluation.n_patients is None:
        return text + "\nPatients are unknown: where several images are of one patient, the true intervals are wider."
    if evaluation.n_patients < evaluation.n:
        return text + "\nThey count images. Images of one patient resemble each other: the true intervals are wider."
    return text


def _origin(evaluation: Evaluation) -> str:
    return _table(
        ("made from", "fingerprint"),
        [
            ("model package", evaluation.package_digest),
            ("test split", evaluation.split_fingerprint),
            ("predictions", evaluation.predictions_sha256),
        ],
        left=2,
    )


def _proportion(figure: Proportion) -> tuple[str, str, str]:
    return f"{figure.value:.3f}", f"{figure.low:.3f} - {figure.high:.3f}", f"{figure.successes} of {figure.n}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align columns: the first ``left`` of them to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rules = ["-" * width for width in widths]
    lines = []
    for row in (header, rules, *rows):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
