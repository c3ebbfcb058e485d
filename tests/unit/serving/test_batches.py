"""Many files, in order, a few at a time; and what a prediction comes to."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from medvision.data.decode import decode_image, fit_to_square
from medvision.errors import DecodeRejected
from medvision.evaluation.domain import domain_distances, fit_domain
from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.models.package import describe, save_package
from medvision.records import Conformal, Figure, OperatingPoint
from medvision.serving.batches import answer_files
from medvision.serving.predictor import Prediction, Predictor

CLASSES = ("glioma", "meningioma", "pituitary")
NO_FIGURE = Figure(None, None, None, None, 0, "")


def save(folder, **parts):
    """Save an untrained package of three classes, with these parts of its description."""
    torch.manual_seed(0)
    architecture = Architecture("simple_cnn", "own", "linear", len(CLASSES), 1, 32)
    network = build_network(architecture, mean=(0.4,), std=(0.2,), pretrained=False)
    info = describe(
        network, name="m", dataset="d", classes=CLASSES, manifest_fingerprint="a", split_fingerprint="b", run_key="c",
        best_epoch=1, best_val_accuracy=0.5,
    )  # fmt: skip
    save_package(folder, dataclasses.replace(info, **parts), [network.eval()])
    return folder


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(save(tmp_path_factory.mktemp("package") / "package"))


@pytest.fixture
def paths(tmp_path):
    """Return 20 images of rising brightness, of which the eighth is no image."""
    found = [tmp_path / f"{number:02d}.png" for number in range(20)]
    for number, path in enumerate(found):
        Image.new("L", (40, 40), 10 * number).save(path)
    found[7].write_bytes(b"no image")
    return found


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 2), (8, 4), (64, 1)])
def test_answers_come_in_order(predictor, paths, batch_size, workers):
    """Each file has the answer that it has alone, in order; one that is no image has its error, in its place."""
    answers = list(answer_files(predictor, paths, batch_size=batch_size, workers=workers))
    assert isinstance(answers[7], DecodeRejected) and "not a readable image" in str(answers[7])
    for path, answer in zip(paths, answers, strict=True):
        if path != paths[7]:
            (alone,) = predictor.predict([path])
            assert answer.prediction.label == alone.label
            assert answer.prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_images_are_held_against_the_domain(tmp_path, paths):
    """Each answer has the distance that its image has alone; of a package without a domain there is none."""
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 1), dtype=np.uint8)
    domain = fit_domain(images[:8], images[8:])
    predictor = Predictor(save(tmp_path / "package", domain=domain))
    for path, answer in zip(paths, answer_files(predictor, paths, batch_size=3, workers=2), strict=True):
        if path != paths[7]:
            pixels = fit_to_square(decode_image(path), 32, 1)
            expected = domain_distances(pixels[np.newaxis], domain)[0]
            assert answer.domain_distance == pytest.approx(expected) and expected > 1


def test_no_domain_no_distance(predictor, paths):
    """A package that was made without a domain has no distance to tell."""
    (answer,) = answer_files(predictor, paths[:1], batch_size=1, workers=1)
    assert answer.domain_distance is None


def test_few_images_are_in_memory(predictor, paths):
    """However many files there are, at most two batches of them have been read ahead of what was answered."""
    read = []

    class Counting(Predictor):
        def __init__(self):
            vars(self).update(vars(predictor))

        def read(self, source, **options):
            read.append(source)
            return predictor.read(source, **options)

    for n_answered, _ in enumerate(answer_files(Counting(), paths, batch_size=2, workers=1)):
        assert len(read) <= n_answered + 6


def test_nothing_to_answer(predictor):
    """Of no files there are no answers."""
    assert list(answer_files(predictor, [], batch_size=4, workers=2)) == []


def test_files_without_an_image(predictor, paths):
    """A batch in which nothing is an image has its errors and no scores."""
    assert len(list(answer_files(predictor, [paths[7]] * 3, batch_size=2, workers=2))) == 3


@pytest.mark.parametrize(
    ("scores", "held", "is_abstention", "called"),
    [
        ((0.8, 0.15, 0.05), ("glioma",), False, True),
        ((0.5, 0.3, 0.2), ("glioma", "meningioma"), True, True),
        ((0.3, 0.29, 0.41), (), True, False),
    ],
)
def test_a_prediction_comes_to_what_the_package_has_frozen(tmp_path, scores, held, is_abstention, called):
    """Prediction set and calls follow the package's thresholds; what is not one class is an abstention."""
    point = OperatingPoint("glioma", 0.35, 0.9, NO_FIGURE, NO_FIGURE)
    conformal = Conformal(0.9, (0.4, 0.3, 0.5), (9, 9, 9))
    predictor = Predictor(save(tmp_path / "package", operating_points=(point,), conformal=conformal))
    best = int(np.argmax(scores))
    decision = predictor.decide(Prediction(CLASSES[best], scores[best], dict(zip(CLASSES, scores, strict=True))))
    assert (decision.prediction_set, decision.is_abstention) == (held, is_abstention)
    assert decision.calls == {"glioma": called}


def test_a_package_without_decisions_makes_none(predictor):
    """Where nothing was frozen there are no prediction sets, and nothing is called."""
    decision = predictor.decide(Prediction("glioma", 0.8, dict(zip(CLASSES, (0.8, 0.1, 0.1), strict=True))))
    assert (decision.prediction_set, decision.is_abstention, decision.calls) == (None, None, {})
