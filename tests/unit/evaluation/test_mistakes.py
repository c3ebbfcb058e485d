"""The sheet of the worst mistakes shows the right images, names no path, and is honest where there is none."""

import numpy as np
import pytest
from PIL import Image

from medvision.evaluation import mistakes
from medvision.evaluation.mistakes import plot_worst_mistakes, worst_mistakes


@pytest.fixture
def sheet(monkeypatch, as_predictions, evaluate, tmp_path):
    """Return a function that draws the sheet and returns the figure with what was asked for."""
    figures, finish = [], mistakes.finish

    def keep(figure, what, evaluation, path):
        figures.append(figure)
        finish(figure, what, evaluation, path)

    monkeypatch.setattr(mistakes, "finish", keep)

    def draw(y_true, y_score, channels=3):
        predictions, asked = as_predictions(y_true, y_score), []

        def image_at(position):
            return np.full((8, 10, channels), position % 256, dtype=np.uint8)

        def map_at(position, class_index):
            asked.append((position, class_index))
            return np.full((4, 4), 0.5, dtype=np.float32)

        plot_worst_mistakes(predictions, evaluate(y_true, y_score), image_at, map_at, tmp_path / "sheet.png")
        assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
        return figures[0], asked

    return draw


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_most_confident_come_first(predictions, as_predictions):
    """The positions are those of the wrong predictions, by falling confidence, at most twelve."""
    y_true, y_score = predictions()
    wrong = [i for i in range(300) if y_score[i].argmax() != y_true[i]]
    expected = sorted(wrong, key=lambda i: -y_score[i].max())[:12]
    assert len(wrong) > 12
    assert worst_mistakes(as_predictions(y_true, y_score)).tolist() == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_shows_each_as_image_and_with_its_map(channels, predictions, as_predictions, sheet):
    """Each mistake has its image twice, once under the map of the class that was predicted."""
    y_true, y_score = predictions()
    figure, asked = sheet(y_true, y_score, channels)
    worst = worst_mistakes(as_predictions(y_true, y_score))
    assert asked == [(i, y_score[i].argmax()) for i in worst]
    for i, plainly, explained in zip(worst, figure.axes[::2], figure.axes[1::2], strict=True):
        assert [np.unique(image.get_array()).tolist() for image in plainly.images] == [[i % 256]]
        assert [np.unique(image.get_array()).tolist() for image in explained.images] == [[i % 256], [0.5]]
        assert explained.images[0].get_extent() == explained.images[1].get_extent()


def test_says_truth_prediction_score_and_pseudonym(predictions, as_predictions, sheet):
    """Above each image stand the true and the predicted class, the score, and the pseudonym."""
    y_true, y_score = predictions()
    figure, _ = sheet(y_true, y_score)
    data = as_predictions(y_true, y_score)
    for i, text in zip(worst_mistakes(data), titles(figure), strict=True):
        truth, predicted = data.classes[y_true[i]], data.classes[y_score[i].argmax()]
        assert text == f"truth: {truth}\npredicted: {predicted}, {y_score[i].max():.3f}\nimage image{i}"


@pytest.mark.parametrize("n_mistakes", [1, 2, 4])
@pytest.mark.filterwarnings("error")
def test_few_mistakes(n_mistakes, sheet):
    """Fewer mistakes than places leave the other places empty."""
    y_true = np.tile([0, 1, 2], 10)
    y_score = np.eye(3)[y_true]
    y_score[:n_mistakes] = np.roll(y_score[:n_mistakes], 1, axis=1)
    figure, asked = sheet(y_true, y_score)
    assert len(asked) == len(titles(figure)) == n_mistakes
    assert ("only mistake" if n_mistakes == 1 else f"of {n_mistakes} mistakes") in figure.get_suptitle()


def test_no_mistake_is_said_plainly(sheet, tmp_path):
    """Where every image was classified right the sheet says so, and asks for no image."""
    figure, asked = sheet(np.tile([0, 1, 2], 10), np.eye(3)[np.tile([0, 1, 2], 10)])
    assert asked == []
    assert "No mistake: every one of 30 images was classified right." in [text.get_text() for text in figure.texts]
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
