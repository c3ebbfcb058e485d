"""Pictures of an evaluation are whole files, drawn without pyplot."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from medvision.evaluation.canvas import plain
from medvision.evaluation.plots import plot_confusion, plot_per_class


@pytest.mark.parametrize("plot", [plot_confusion, plot_per_class])
@pytest.mark.parametrize("k", [2, 3, 12])
@pytest.mark.filterwarnings("error")
def test_draws_a_picture(plot, k, predictions, evaluate, tmp_path):
    """The picture is a PNG that shows something, for few classes and for many, and nothing else is left."""
    plot(evaluate(*predictions(k=k), [f"class number {c}" for c in range(k)]), tmp_path / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 10


@pytest.mark.parametrize("plot", [plot_confusion, plot_per_class])
def test_perfect_model(plot, evaluate, tmp_path):
    """Proportions of 0 and 1, where whiskers have one side only, are drawn as well."""
    plot(evaluate(np.array([0, 1, 2]), np.eye(3)), tmp_path / "perfect.png")
    plot(evaluate(np.array([0, 1, 2]), np.eye(3)[[1, 2, 0]]), tmp_path / "wrong.png")


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("no_tumor", "no_tumor"),
        (r"$\frac{$", r"\$\frac{\$"),
        ("_hidden", " _hidden"),
        ("x" * 40, "x" * 27 + "…"),
    ],
)
def test_names_are_drawn_as_they_are(name, drawn):
    """A name is no formula, is not hidden for its underscore, and is cut where it would fill the picture."""
    assert plain(name) == drawn


def test_import_loads_no_matplotlib():
    """Importing evaluation loads none of the libraries that cost seconds."""
    code = (
        "import sys, medvision.evaluation.plots, medvision.evaluation.metrics, medvision.evaluation.scoring, "
        "medvision.evaluation.predictions, medvision.evaluation.report, medvision.evaluation.curves, "
        "medvision.evaluation.explain, medvision.evaluation.mistakes, medvision.evaluation.html_report; "
        "print(sorted({'matplotlib', 'torch', 'sklearn', 'pandas', 'pyarrow', 'scipy', 'mlflow', 'jinja2'} "
        "& set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
