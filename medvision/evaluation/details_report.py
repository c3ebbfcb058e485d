"""The details of an evaluation as text, below its figures."""

from __future__ import annotations

from collections.abc import Iterator

from medvision.evaluation.details_tables import describe_tables, interval, value
from medvision.evaluation.report import table
from medvision.evaluation.wording import describe_looks, label
from medvision.records import (
    Abstention,
    ConformalFigures,
    Details,
    Evaluation,
    Figure,
    OperatingPointFigures,
    Speed,
)


def render_details(details: Details, evaluation: Evaluation) -> str:
    """Return a section for each thing that was found out."""
    return "\n\n".join(_sections(details, evaluation)) + "\n"


def _sections(details: Details, evaluation: Evaluation) -> Iterator[str]:
    yield _calibration(details, evaluation)
    for point in details.operating_points:
        yield _operating_point(point)
    if details.conformal and details.abstention:
        yield _sets(details.conformal, details.abstention, evaluation.classes)
    yield _selection(details)
    if details.indeterminate:
        yield _domain(details.indeterminate)
    for each in describe_tables(details):
        yield f"{each.title}: {each.note}\n\n" + table(each.header, each.rows)
    if details.speed:
        yield _speed(details.speed)
    yield describe_looks(details.looks)


def _calibration(details: Details, evaluation: Evaluation) -> str:
    rows = [
        (label(name), f"{details.uncalibrated[name]:.4f}", value(getattr(evaluation.overall, name), 4))
        for name in ("ece", "brier", "nll")
    ]
    return "Calibration: the temperature was fitted on val\n\n" + table(("", "before", "after"), rows)


def _operating_point(point: OperatingPointFigures) -> str:
    rows = [(label(name), *_cells(getattr(point, name))) for name in ("sensitivity", "specificity", "ppv", "npv")]
    heading = (
        f"Operating point: {point.class_name} is called from a score of {point.threshold:.4f} on, as chosen on val.\n"
        f"PPV and NPV at a prevalence of {point.prevalence:.3f}."
    )
    return f"{heading}\n\n" + table(("on test", "value", "95 % interval", "95 % bound"), rows)


def _sets(conformal: ConformalFigures, abstention: Abstention, classes: tuple[str, ...]) -> str:
    rows = [
        (name, *_cells(covered), value(out), value(right))
        for name, covered, out, right in zip(
            classes,
            conformal.per_class,
            abstention.abstained_per_class,
            abstention.accuracy_per_class,
            strict=True,
        )
    ]
    heading = (
        f"Prediction sets that hold the truth in {conformal.coverage:.0%} of each class; an answer is given "
        f"where the set has one class.\nMean size {conformal.mean_set_size:.2f}; left unanswered "
        f"{value(abstention.abstained)}, accuracy of the answered {value(abstention.accuracy)}."
    )
    header = ("class", "coverage", "95 % interval", "95 % bound", "unanswered", "accuracy of answered")
    return f"{heading}\n\n" + table(header, rows)


def _selection(details: Details) -> str:
    rows = [
        (f"{selection.threshold:.4f}", *_cells(selection.coverage)[:2], *_cells(selection.accuracy)[:2])
        for selection in details.selections
    ]
    heading = (
        "Selective prediction: answers only from a score on\n"
        f"Area under the risk-coverage curve {details.aurc:.4f}, {details.excess_aurc:.4f} more than the best order of "
        "the same answers."
    )
    header = ("from", "answered", "95 % interval", "accuracy", "95 % interval")
    return f"{heading}\n\n" + table(header, rows)


def _domain(outside: Figure) -> str:
    return (
        f"Domain: {value(outside)} {interval(outside)} of the test images, {outside.successes} of {outside.n}, are so "
        "unlike those of train\nthat a service calls them indeterminate; about 0.005 are expected of images like val's."
    )


def _speed(speed: Speed) -> str:
    latency = speed.latency
    return (
        f"Speed on {speed.hardware}, decoding not counted\n\n"
        f"one image: p50 {latency.p50_ms:.1f} ms, p95 {latency.p95_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms "
        f"({latency.n} answers, threads: {latency.threads})\n"
        f"batches of {speed.batch_size}: {speed.throughput_images_s:.0f} images/s; weights and a batch of 64: "
        f"{speed.peak_memory_bytes / 1e6:.0f} MB of memory at most\n"
        f"{speed.n_parameters / 1e6:.2f} million parameters, package of {speed.size_bytes / 1e6:.1f} MB"
    )


def _cells(figure: Figure) -> tuple[str, str, str]:
    bound = "" if figure.bound is None else f">= {figure.bound:.3f}"
    return value(figure), interval(figure), bound
