"""What a version's page in the MLflow UI says: the verdict, the key figures, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping

from medvision.evaluation.wording import label
from medvision.records import Evaluation, Figure, Verdict

_HEADING = "#### Medical validation"
_OVERALL = ("accuracy", "balanced_accuracy", "auroc", "ece")


def describe_version(
    text: str, verdict: Verdict | None, evaluation: Evaluation | None, links: Mapping[str, str]
) -> str:
    """Return the description of a version, in Markdown.

    ``text`` is the user's own, before all others. ``links`` are pages of the UI, by what they are called.
    """
    blocks = [text] if text else []
    blocks += [f"{_HEADING}\n\n{_state(verdict)}"]
    if evaluation is not None:
        patients = "" if evaluation.n_patients is None else f" of {evaluation.n_patients:,} patients"
        blocks += [f"On {evaluation.n:,} test images{patients} of {evaluation.dataset}, with 95 % intervals:"]
        blocks += ["\n".join(_figures(evaluation))]
    blocks += [" | ".join(f"[{name}]({address})" for name, address in links.items())]
    return "\n\n".join(blocks)


def own_text(description: str) -> str:
    """Return what the user wrote into a description."""
    return description.partition(_HEADING)[0].strip()


def _state(verdict: Verdict | None) -> str:
    if verdict is None:
        return "**NOT VALIDATED**: there is no verdict. It must not be used for patients, and can't be promoted."
    when = verdict.made_at[:10]
    if verdict.passed:
        return f"**passed medical validation** under policy {verdict.policy} on {when}, grade: {verdict.grade}"
    n_open = sum(not outcome.passed for outcome in verdict.outcomes)
    return (
        f"**did NOT pass medical validation** ({verdict.state.replace('_', ' ')}) under policy {verdict.policy} on "
        f"{when}: {n_open} of {len(verdict.outcomes)} rules are not met. It must not be used for patients."
    )


def _figures(evaluation: Evaluation) -> list[str]:
    lines = ["| figure | value | interval |", "|---|---|---|"]
    lines += [_row(label(name), getattr(evaluation.overall, name)) for name in _OVERALL]
    for figures in evaluation.per_class:
        # A bar would end the cell.
        name = figures.name.replace("|", "/")
        lines += [_row(f"sensitivity, {name}", figures.sensitivity), _row(f"specificity, {name}", figures.specificity)]
    return lines


def _row(name: str, figure: Figure) -> str:
    value = "-" if figure.value is None else f"{figure.value:.3f}"
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return f"| {name} | {value} | {interval} |"
