"""The figures of a model card, as they stand in the records."""

from __future__ import annotations

from medvision.documents.pages import Block, Cell, Gap, Grid, KeyFigure, Text, Value
from medvision.evaluation.details_tables import describe_tables
from medvision.evaluation.figures import OVERALL
from medvision.evaluation.wording import heading, label
from medvision.records import Details, Evaluation, Figure, PackageInfo, Speed

_KEY = ("accuracy", "balanced_accuracy", "auroc", "ece")
_PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "auroc", "calibration_slope", "calibration_intercept")


def value(figure: Figure) -> Value:
    """Return a figure with its interval."""
    if figure.value is None:
        return Value("–", "")
    interval = "" if figure.low is None or figure.high is None else f"{_number(figure.low)} to {_number(figure.high)}"
    return Value(_number(figure.value), interval)


def key_figures(evaluation: Evaluation, details: Details | None) -> tuple[KeyFigure, ...]:
    """Return what is seen at a glance."""
    found = [KeyFigure(heading(name), value(getattr(evaluation.overall, name))) for name in _KEY]
    if details is not None:
        found += [
            KeyFigure(f"Sensitivity for {point.class_name}", value(point.sensitivity), "at its operating point")
            for point in details.operating_points
        ]
    return tuple(found)


def model_table(info: PackageInfo) -> Grid:
    """Return the networks of a package, a row each."""
    rows = []
    # Stacking has coefficients in place of weights.
    weights = [f"{weight:.2f}" for weight in info.combination.weights]
    weights = weights if len(weights) == len(info.members) else ["–"] * len(info.members)
    for member, weight in zip(info.members, weights, strict=True):
        made = member.preprocessing
        rows.append(
            (
                member.model,
                f"{made.image_size} × {made.image_size} × {made.channels}"
                + (f", window {made.window}" if made.window else ""),
                ", ".join(f"{each:.3f}" for each in made.mean),
                ", ".join(f"{each:.3f}" for each in made.std),
                f"{member.temperature:.3g}",
                weight,
                str(member.best_epoch),
                f"{member.best_val_accuracy:.3f}",
            )
        )
    header = ("network", "input, pixels", "mean", "std", "temperature", "weight", "best epoch", "val accuracy")
    note = "An image is decoded, converted to the channels, resized to the square, and normalized with mean and std."
    return Grid("Networks and their preprocessing", header, tuple(rows), note=note)


def describe_figures(evaluation: Evaluation | None, details: Details | None) -> list[Block]:
    """Return all tables of figures, those of the details if there are any."""
    if evaluation is None:
        return [Text(Gap("The model was not evaluated; run: medvision evaluate"))]
    blocks: list[Block] = [_overall(evaluation), *_classes(evaluation), _confusion(evaluation)]
    if details is None:
        return [
            *blocks,
            Text(Gap("Calibration, thresholds, abstention and subgroups are not recorded beside the figures")),
        ]
    blocks += [_calibration(evaluation, details)]
    blocks += _decisions(evaluation, details)
    blocks += [Grid(each.title, each.header, each.rows, note=each.note) for each in describe_tables(details)]
    blocks += [_speed(details.speed)] if details.speed else []
    return blocks


def _overall(evaluation: Evaluation) -> Grid:
    figures = [(name, getattr(evaluation.overall, name)) for name in OVERALL]
    rows = tuple((heading(name), value(figure), figure.method) for name, figure in figures)
    return Grid("All classes together", ("figure", "value and 95 % interval", "method"), rows, texts=("method",))


def _classes(evaluation: Evaluation) -> list[Block]:
    rows: list[tuple[Cell, ...]] = [
        (
            each.name,
            f"{each.n:,}",
            "–" if each.n_patients is None else f"{each.n_patients:,}",
            *(value(getattr(each, name)) for name in _PER_CLASS),
        )
        for each in evaluation.per_class
    ]
    header = ("class", "images", "patients", *(label(name) for name in _PER_CLASS))
    note = (
        "The class of the highest score is called. PPV and NPV are those at the frequency of the class in this test "
        "split. A slope of 1 and an intercept of 0 are those of calibrated scores."
    )
    return [Grid("Each class against all others, with 95 % intervals", header, tuple(rows), note=note)]


def _confusion(evaluation: Evaluation) -> Grid:
    rows = tuple(
        (name, *(str(n) for n in counts)) for name, counts in zip(evaluation.classes, evaluation.confusion, strict=True)
    )
    return Grid("Confusion matrix: rows are the truth, columns what was called", ("", *evaluation.classes), rows)


def _calibration(evaluation: Evaluation, details: Details) -> Grid:
    rows = tuple(
        (heading(name), f"{details.uncalibrated[name]:.4f}", f"{after:.4f}" if after is not None else "–")
        for name in ("ece", "brier", "nll")
        if name in details.uncalibrated
        for after in [getattr(evaluation.overall, name).value]
    )
    return Grid("Calibration, by the temperature that was fitted on val", ("figure", "before", "after"), rows)


def _decisions(evaluation: Evaluation, details: Details) -> list[Block]:
    blocks: list[Block] = []
    if details.operating_points:
        names = ("sensitivity", "specificity", "ppv", "npv")
        rows: list[tuple[Cell, ...]] = [
            (
                point.class_name,
                f"{point.threshold:.4f}",
                f"{point.prevalence:.3f}",
                *(value(getattr(point, name)) for name in names),
            )
            for point in details.operating_points
        ]
        header = ("class", "threshold", "prevalence", *(label(name) for name in names))
        note = "PPV and NPV are those at the prevalence, the share of the class where the model will be used."
        blocks.append(Grid("At the operating points, on test", header, tuple(rows), note=note))
    if details.conformal and details.abstention:
        sets, abstention = details.conformal, details.abstention
        told = zip(
            evaluation.classes,
            sets.per_class,
            abstention.abstained_per_class,
            abstention.accuracy_per_class,
            strict=True,
        )
        note = (
            f"An answer is given where the set holds one class: {value(abstention.abstained).text} of the images are "
            f"left unanswered, and {value(abstention.accuracy).text} of the answers are right."
        )
        header = ("class", "sets that hold the truth", "unanswered", "accuracy of the answered")
        by_class = [(name, value(held), value(out), value(right)) for name, held, out, right in told]
        blocks.append(Grid("Selective prediction by prediction sets, on test", header, tuple(by_class), note=note))
    if details.selections:
        chosen = tuple(
            (f"{each.threshold:.4f}", value(each.coverage), value(each.accuracy)) for each in details.selections
        )
        header = ("answers only from a score of", "share answered", "accuracy of the answered")
        blocks.append(Grid("Selective prediction by the score, on test", header, chosen))
    return blocks


def _speed(speed: Speed) -> Grid:
    rows = (
        ("latency of one image, median", f"{speed.latency.p50_ms:.1f} ms"),
        ("latency, 95th percentile", f"{speed.latency.p95_ms:.1f} ms"),
        ("threads an image", f"{speed.latency.threads}"),
        ("throughput", f"{speed.throughput_images_s:.0f} images a second"),
        ("parameters", f"{speed.n_parameters:,}"),
    )
    return Grid(f"Speed on {speed.hardware}, decoding not counted", ("figure", "value"), rows)


def _number(number: float) -> str:
    return f"{number:.3f}" if abs(number) < 100 else f"{number:.2g}"
