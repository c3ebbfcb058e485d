"""What a person sees: plain `mlflow ui` and plain TensorBoard in the project's folder, in a browser."""

import pytest
from medvision_project import DATASET, MODEL

# Two servers and a browser: more than half a minute.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ui(project, browser):
    """Start `mlflow ui` with no variable set."""
    with project.serving("mlflow", "ui", path="/health") as url:
        yield url


@pytest.fixture(scope="module")
def tensorboard(project, browser):
    with project.serving("tensorboard", "--logdir", "runs", path="/data/environment") as url:
        yield url


@pytest.fixture
def run_url(project, ui):
    """Return how a step's run is reached."""

    def find(step):
        (parent,) = project.runs("pipeline")
        (run,) = (child for child in project.children(parent) if child.data.tags["medvision.step"] == step)
        return f"{ui}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"

    return find


def test_the_ui_shows_the_runs(project, ui, page, tmp_path):
    """The experiment's table has the pipeline's run, under a name that says its model."""
    (parent,) = project.runs("pipeline")
    page.goto(f"{ui}/#/experiments/{parent.info.experiment_id}/runs")
    page.get_by_text("pipeline simple_cnn").first.wait_for()
    page.screenshot(path=tmp_path / "runs.png")


def test_the_ui_shows_a_training(page, run_url, tmp_path):
    """The train run shows its best accuracy, its settings, and its dataset."""
    page.goto(run_url("train"))
    for text in ("best_val_accuracy", "training.model", DATASET):
        page.get_by_text(text).first.wait_for()
    page.screenshot(path=tmp_path / "training.png")


def test_the_ui_shows_curves(page, run_url, tmp_path):
    """The train run has a chart of the val accuracy."""
    page.goto(f"{run_url('train')}/model-metrics")
    page.get_by_text("val_accuracy").first.wait_for()
    page.screenshot(path=tmp_path / "curves.png")


def test_the_ui_shows_the_figures(page, run_url, tmp_path):
    """The confusion matrix of the evaluation is seen as a picture."""
    page.goto(f"{run_url('evaluate')}/artifacts/evaluation/confusion_matrix.png")
    page.get_by_text("confusion_matrix.png").first.wait_for()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth > 300)")
    page.screenshot(path=tmp_path / "figure.png")


def test_the_ui_shows_the_registered_model(ui, page, tmp_path):
    """The registry lists the model."""
    page.goto(f"{ui}/#/models")
    page.get_by_text(MODEL).first.wait_for()
    page.screenshot(path=tmp_path / "models.png")


def test_the_ui_shows_the_version(ui, page, tmp_path):
    """The version's page shows its description with the figures, its semantic version and its alias."""
    page.goto(f"{ui}/#/models/{MODEL}/versions/1")
    for text in ("passed medical validation", "sensitivity", "1.0.0", "v1-0-0"):
        page.get_by_text(text).first.wait_for()
    page.screenshot(path=tmp_path / "version.png")


def test_the_version_leads_to_its_report(ui, page, tmp_path):
    """The link in the version's description opens the report itself, which says the verdict."""
    page.goto(f"{ui}/#/models/{MODEL}/versions/1")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Evaluation report").click()
    opened.value.frame_locator("iframe").get_by_text("Medical validation: passed").wait_for()
    opened.value.screenshot(path=tmp_path / "report.png")


def test_tensorboard_shows_the_curves(tensorboard, page, tmp_path):
    """TensorBoard lists the training and plots its accuracy."""
    page.goto(f"{tensorboard}/#timeseries")
    page.get_by_text("val_accuracy").first.wait_for()
    page.get_by_text("train simple_cnn").first.wait_for()
    page.screenshot(path=tmp_path / "tensorboard.png")
