"""A comparison as text for a person and as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import textwrap

from medvision.evaluation.compare import FIGURES, TESTS
from medvision.evaluation.report import table
from medvision.evaluation.wording import describe_cases, label, shorten
from medvision.records import ComparedModel, Comparison, Figure, PairComparison

_COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece", "brier", "nll")
_WIDTH = 120
# The longest names that leave the other columns room.
_OF_FIGURES, _OF_SPEED, _OF_PAIRS = 45, 26, 17


def render_text(comparison: Comparison) -> str:
    """Return models by rank, differences of every pair with intervals and p values, and how they were tested."""
    ranks = {model.name: rank for rank, model in enumerate(comparison.models, 1)}
    tests = [test for test in TESTS if test in FIGURES or any(test in pair.p_values for pair in comparison.pairs)]
    blocks = [
        _heading(comparison),
        table(("rank", "model", *map(label, _COLUMNS)), [_figures(i, m) for i, m in enumerate(comparison.models)], 2),
        table(_SPEED, [_speed(model) for model in comparison.models]),
        "Differences, first less second (95 % interval)\n\n"
        + table(
            ("first", "second", *map(label, FIGURES)),
            [(*_pair(pair, ranks), *_differences(pair)) for pair in comparison.pairs],
            2,
        ),
        "Two-sided p values of no difference, and after Holm\n\n"
        + table(
            ("first", "second", *map(label, tests)),
            [(*_pair(pair, ranks), *(_p(pair, test) for test in tests)) for pair in comparison.pairs],
            2,
        ),
        textwrap.fill(_method(comparison, tests), _WIDTH, break_on_hyphens=False),
    ]
    return "\n\n".join(blocks) + "\n"


def _method(comparison: Comparison, tests: list[str]) -> str:
    n_pairs = len(comparison.pairs)
    delong = "DeLong: on images, which it takes for independent. " if "delong" in tests else ""
    return (
        "Intervals and p values of differences: paired bootstrap, the same patients drawn for both models. McNemar: on "
        f"the sums of each patient, exact on images where patients are unknown. {delong}All two-sided; p after Holm is "
        f"adjusted for {n_pairs} pair{'s' if n_pairs > 1 else ''}, each figure and test by itself; - where a test does "
        "not apply. The rank is that of the balanced accuracy: models that no test tells apart share it in truth."
    )


def render_csv(comparison: Comparison) -> str:
    """Return a row a model: every overall figure with its limits, speed, size and hardware."""
    output = io.StringIO()
    rows = [_row(rank, model) for rank, model in enumerate(comparison.models, 1)]
    writer = csv.DictWriter(output, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue()


_SPEED = ("model", "parameters", "size", "latency p50", "p95", "p99", "throughput", "at batch", "peak memory")


def _heading(comparison: Comparison) -> str:
    first = comparison.models[0].evaluation
    title = f"{len(comparison.models)} models on {first.dataset}"
    hardware = comparison.models[0].speed.hardware
    lines = (title, "=" * len(title), describe_cases(first), f"speed measured on {hardware}")
    return "\n".join(shorten(line, _WIDTH) for line in lines)


def _figures(place: int, model: ComparedModel) -> tuple[str, ...]:
    overall = model.evaluation.overall
    return (str(place + 1), shorten(model.name, _OF_FIGURES), *(_value(getattr(overall, name)) for name in _COLUMNS))


def _value(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.3f}"


def _speed(model: ComparedModel) -> tuple[str, ...]:
    speed = model.speed
    latency = speed.latency
    return (
        shorten(model.name, _OF_SPEED),
        f"{speed.n_parameters / 1e6:.2f} M",
        f"{speed.size_bytes / 1e6:.1f} MB",
        *(f"{value:.1f} ms" for value in (latency.p50_ms, latency.p95_ms, latency.p99_ms)),
        f"{speed.throughput_images_s:.0f} /s",
        str(speed.batch_size),
        f"{speed.peak_memory_bytes / 1e6:.0f} MB",
    )


def _pair(pair: PairComparison, ranks: dict[str, int]) -> tuple[str, str]:
    first, second = (shorten(f"{ranks[name]} {name}", _OF_PAIRS) for name in (pair.a, pair.b))
    return first, second


def _differences(pair: PairComparison) -> list[str]:
    cells = []
    for name in FIGURES:
        figure = pair.differences[name]
        interval = "" if figure.low is None else f" ({figure.low:+.3f} to {figure.high:+.3f})"
        cells.append("-" if figure.value is None else f"{figure.value:+.3f}{interval}")
    return cells


def _p(pair: PairComparison, test: str) -> str:
    if test not in pair.p_values:
        return "-"
    return f"{_rounded(pair.p_values[test])}, {_rounded(pair.adjusted_p_values[test])}"


def _rounded(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _row(rank: int, model: ComparedModel) -> dict[str, object]:
    overall, speed = model.evaluation.overall, model.speed
    row: dict[str, object] = {"rank": rank, "model": model.name}
    for name in vars(overall):
        figure = getattr(overall, name)
        row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return row | {
        "n_parameters": speed.n_parameters,
        "size_bytes": speed.size_bytes,
        "latency_p50_ms": speed.latency.p50_ms,
        "latency_p95_ms": speed.latency.p95_ms,
        "latency_p99_ms": speed.latency.p99_ms,
        "throughput_images_s": speed.throughput_images_s,
        "batch_size": speed.batch_size,
        "peak_memory_bytes": speed.peak_memory_bytes,
        "hardware": speed.hardware,
    }
