"""A comparison as text and as CSV, and its pictures."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image

from medvision.evaluation.compare import compare_models
from medvision.evaluation.comparison_plots import plot_comparison
from medvision.evaluation.comparison_report import render_csv, render_text
from medvision.records import ComparedModel, Comparison, Latency, Plan, Speed, load_record, save_record

NAMES = (
    "resnet18", "densenet121", "vit_base_patch16_clip_224.openai_ft_in12k_in1k", "efficientnet_b0", "my_$x$_net",
    "swin_tiny_patch4_window7_224", "convnext_tiny",
)  # fmt: skip
PICTURES = {
    "accuracy_comparison.png", "multi_metric_comparison.png", "accuracy_vs_size.png", "inference_speed.png",
}  # fmt: skip


@pytest.fixture
def comparison(evaluate, as_predictions, predictions):
    """Compare n models of rising accuracy, the last the best, on 200 images of k classes."""

    def make(n, k=2, groups=None, perfect=False):
        y_true, _ = predictions(n=200, k=k)
        classes, scored, compared = [f"class{c}" for c in range(k)], [], []
        for i, name in enumerate(NAMES[:n]):
            logits = np.random.default_rng(i).normal(size=(200, k)) + (1 + 0.4 * i) * np.eye(k)[y_true]
            y_score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            if perfect:
                y_score = np.eye(k)[y_true] if i else np.tile(np.eye(k)[0], (200, 1))
            scored.append((name, as_predictions(y_true, y_score, classes, groups)))
            speed = Speed(Latency(3.1 * (i + 1), 45.2, 1199.9, 50, 1), 64, 2204.4, 12_345_678_901, 3_450_000_000,
                          11_200_000 * (i + 1), "AMD EPYC 7763 64-Core Processor, 8 threads")  # fmt: skip
            compared.append(ComparedModel(name, evaluate(y_true, y_score, classes, groups), speed))
        compared.sort(key=lambda model: -model.evaluation.overall.balanced_accuracy.value)
        return Comparison(tuple(compared), compare_models(scored, Plan(100)))

    return make


@pytest.mark.parametrize("n", [2, 7])
@pytest.mark.parametrize("groups", [None, np.arange(200) // 2], ids=["images", "patients"])
def test_lines_have_at_most_120_columns(comparison, n, groups):
    """Whatever the names and the figures, a line fits a terminal."""
    text = render_text(comparison(n, groups=groups))
    assert max(map(len, text.splitlines())) <= 120


def test_long_names_of_dataset_and_machine_fit(comparison):
    """They are shortened, and the line is not."""
    found = comparison(2)
    model = found.models[0]
    long = dataclasses.replace(
        model,
        evaluation=dataclasses.replace(model.evaluation, dataset="d" * 200),
        speed=dataclasses.replace(model.speed, hardware="h" * 200),
    )
    text = render_text(dataclasses.replace(found, models=(long, found.models[1])))
    assert max(map(len, text.splitlines())) <= 120


def test_the_text_says_what_was_compared(comparison):
    """Cases, hardware, rank, tests and multiplicity are stated."""
    text = render_text(comparison(3, groups=np.arange(200) // 2))
    for part in (
        "3 models on phantom", "200 images, 100 patients", "AMD EPYC 7763", "1     vit_base", "3     resnet18",
        "McNemar", "adjusted for 3 pairs", "Holm", "33.60 M", "1199.9 ms",
    ):  # fmt: skip
        assert part in text


def test_the_text_has_every_pair(comparison):
    """A row of differences with intervals and a row of p values for each pair, the models named with their ranks."""
    found = comparison(3)
    lines = render_text(found).splitlines()
    assert sum(line.split()[:4] == ["3", "resnet18", "2", "densenet121"] for line in lines) == 2
    figure = found.pairs[0].differences["accuracy"]
    assert f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})" in "\n".join(lines)


@pytest.mark.parametrize(("k", "groups", "shown"), [(2, None, True), (3, None, False), (2, np.arange(200), False)])
def test_delong_is_shown_where_it_applies(comparison, k, groups, shown):
    """Of two classes, where patients are unknown."""
    assert ("DeLong" in render_text(comparison(2, k=k, groups=groups))) == shown


def test_what_is_not_defined_is_a_dash(comparison):
    """Tests that do not apply, as of a faultless model against a constant one, are shown as such."""
    text = render_text(comparison(2, perfect=True))
    _, tests = [line.split() for line in text.splitlines() if line.startswith("2 resnet18")]
    assert tests[4:] == ["-", "-", "-", "<.001,", "<.001"]


def test_an_undefined_difference_is_a_dash(comparison):
    """A figure that is not defined for a model has no difference."""
    found = comparison(2)
    pair = found.pairs[0]
    nothing = dataclasses.replace(pair.differences["auroc"], value=None, low=None, high=None, bound=None)
    pair = dataclasses.replace(pair, differences={**pair.differences, "auroc": nothing})
    assert "  -\n" in render_text(dataclasses.replace(found, pairs=(pair,)))


def test_csv_parses_back(comparison):
    """A row a model by rank, with the numbers of the record, to the last digit."""
    found = comparison(7, k=3)
    rows = list(csv.DictReader(io.StringIO(render_csv(found))))
    assert [row["model"] for row in rows] == [model.name for model in found.models]
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 8)]
    for row, model in zip(rows, found.models, strict=True):
        for name in ("accuracy", "auroc", "ece", "nll"):
            figure = getattr(model.evaluation.overall, name)
            assert [float(row[name + end]) for end in ("", "_low", "_high")] == [figure.value, figure.low, figure.high]
        assert int(row["n_parameters"]) == model.speed.n_parameters
        assert float(row["latency_p95_ms"]) == model.speed.latency.p95_ms
        assert row["hardware"] == model.speed.hardware


def test_csv_leaves_undefined_figures_empty(comparison):
    """Of a faultless model the log loss has no interval: empty cells, and not None."""
    found = render_csv(comparison(2, perfect=True))
    row = next(csv.DictReader(io.StringIO(found)))
    assert row["nll_low"] == ""
    assert "None" not in found and "nan" not in found


def test_survives_json(comparison, tmp_path):
    """A comparison is the same after it was saved and loaded."""
    found = comparison(3)
    save_record(found, tmp_path / "comparison.json")
    assert load_record(Comparison, tmp_path / "comparison.json") == found
    assert all(math.isfinite(p) for pair in found.pairs for p in pair.p_values.values())


@pytest.mark.parametrize("n", [2, 7])
@pytest.mark.filterwarnings("error")
def test_pictures_are_drawn(comparison, n, tmp_path):
    """Four PNGs that show something, and nothing else, for few models and for many."""
    plot_comparison(comparison(n, k=3), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == PICTURES
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 10


@pytest.mark.filterwarnings("error")
def test_pictures_of_faultless_models(comparison, tmp_path):
    """Figures without an interval, and values of 0 and 1, are drawn as well."""
    plot_comparison(comparison(2, perfect=True), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == PICTURES
