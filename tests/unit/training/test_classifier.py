"""The loss, the schedule and the figures of a training."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch.nn import functional as F

from medvision.training.classifier import Classifier, class_weights, warmup_cosine


def make_classifier(model: torch.nn.Module, **settings) -> Classifier:
    defaults = {"class_weights": None, "label_smoothing": 0.0, "warmup_epochs": 0, "epochs": 1, "seed": 42}
    classifier = Classifier(model, build_optimizer=lambda: None, **{**defaults, **settings})
    classifier.log = lambda *arguments, **options: None
    return classifier


def loss_of(logits: torch.Tensor, labels: torch.Tensor, **settings) -> float:
    classifier = make_classifier(torch.nn.Identity(), **settings)
    return classifier.training_step((logits, labels), batch_idx=1).item()


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 0, 0, 1, 1, 2])


def test_warm_up_rises_in_a_line():
    """During the warm-up the factor of the learning rate rises by equal steps, and reaches 1 right after it."""
    factors = [warmup_cosine(step, 4, 100) for step in range(5)]
    np.testing.assert_allclose(factors, [0.2, 0.4, 0.6, 0.8, 1.0])


def test_after_the_warm_up_a_half_cosine_falls_to_zero():
    """After the warm-up the factor is 1 at first, 1/2 half-way and 0 at the end, and never rises."""
    factors = [warmup_cosine(step, 10, 110) for step in range(10, 111)]
    assert (factors[0], factors[50], factors[100]) == pytest.approx((1, 0.5, 0))
    assert all(before > after for before, after in itertools.pairwise(factors))


def test_the_factor_stays_zero_past_the_end():
    """A step more than was planned does not raise the learning rate again."""
    assert warmup_cosine(120, 10, 110) == pytest.approx(0)


def test_class_weights_balance_the_classes():
    """Each class weighs the same in total, and the mean weight of a sample is 1."""
    weights = class_weights(LABELS, 3)
    totals = torch.bincount(LABELS) * weights
    torch.testing.assert_close(totals, torch.full((3,), 2.0))
    assert weights[LABELS].mean() == pytest.approx(1)


def test_a_class_without_images_has_a_finite_weight():
    """A class that no sample has gets a finite weight."""
    assert torch.isfinite(class_weights(LABELS, 4)).all()


def test_the_loss_is_the_mean_cross_entropy(logits):
    """Without weights and smoothing the loss is -log p of the label, averaged: numpy in float64 says the same."""
    scores = logits.double().numpy()
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert loss_of(logits, LABELS) == pytest.approx(-log_p[np.arange(6), LABELS].mean(), rel=1e-6)


def test_class_weights_weigh_the_samples(logits):
    """With class weights each sample counts with the weight of its class."""
    weights = class_weights(LABELS, 3)
    each = F.cross_entropy(logits, LABELS, reduction="none")
    assert loss_of(logits, LABELS, class_weights=weights) == pytest.approx((weights[LABELS] * each).mean().item())


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(logits):
    """The weighted loss of a batch is the mean over its halves, so that accumulation may replace memory."""
    weights = class_weights(LABELS, 3)
    halves = [loss_of(logits[part], LABELS[part], class_weights=weights) for part in (slice(0, 3), slice(3, 6))]
    assert loss_of(logits, LABELS, class_weights=weights) == pytest.approx(np.mean(halves), rel=1e-6)


def test_label_smoothing_spreads_the_target(logits):
    """With smoothing e the target is 1 - e + e/k for the label and e/k for every other class."""
    target = F.one_hot(LABELS, 3) * 0.9 + 0.1 / 3
    expected = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean().item()
    assert loss_of(logits, LABELS, label_smoothing=0.1) == pytest.approx(expected, rel=1e-6)


def test_figures_of_val_equal_sklearn(build, train, make_data, recorder):
    """The accuracies recorded after the last epoch are those of numpy and sklearn for the network as it was then."""
    network, data = build(), make_data((24, 8, 16), n_val=20)
    train(network, data, epochs=1)
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(data.images[data.val]).permute(0, 3, 1, 2))
    y_pred, y_true = logits.argmax(dim=1).numpy(), data.labels[data.val]
    assert recorder.figures("val_accuracy") == pytest.approx([(y_pred == y_true).mean()])
    assert recorder.figures("val_balanced_accuracy") == pytest.approx([balanced_accuracy_score(y_true, y_pred)])
    expected = F.cross_entropy(logits, torch.from_numpy(y_true)).item()
    assert recorder.figures("val_loss") == pytest.approx([expected], rel=1e-4)


def test_each_epoch_records_its_figures_once(train, recorder):
    """Loss, accuracies, learning rate, gradient norm and seconds are recorded once an epoch, all finite."""
    train(epochs=3)
    assert [step for step, _ in recorder.epochs] == [0, 1, 2]
    expected = {"train_loss", "train_accuracy", "gradient_norm", "lr", "epoch_seconds"}
    expected |= {"val_loss", "val_accuracy", "val_balanced_accuracy"}
    assert all(values.keys() == expected for _, values in recorder.epochs)
    assert all(math.isfinite(value) for _, values in recorder.epochs for value in values.values())


def test_the_learning_rate_follows_the_schedule(train, recorder):
    """The mean learning rate of each epoch is that of warm-up and cosine over all steps of the training."""
    train(epochs=4, warmup_epochs=1.0, lr=1e-2)  # 48 images in batches of 16: 3 steps an epoch
    expected = [1e-2 * np.mean([warmup_cosine(step, 3, 12) for step in range(e * 3, e * 3 + 3)]) for e in range(4)]
    np.testing.assert_allclose(recorder.figures("lr"), expected, rtol=1e-6)


def test_clipping_bounds_the_gradient_and_logs_the_norm_it_had():
    """A gradient above the limit is scaled down to it, and the norm from before is logged."""
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3.0)  # norm 6
    classifier = make_classifier(torch.nn.Identity())
    logged = {}
    classifier.log = lambda name, value, **options: logged.update({name: float(value)})
    classifier.configure_gradient_clipping(torch.optim.SGD([weight], lr=0.1), gradient_clip_val=1.5)
    assert weight.grad.norm().item() == pytest.approx(1.5)
    assert logged == {"gradient_norm": pytest.approx(6), "lr": pytest.approx(0.1)}


def test_without_a_limit_the_gradient_is_left_alone():
    """With training.gradient_clip=0 the gradient keeps its length."""
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3.0)
    make_classifier(torch.nn.Identity()).configure_gradient_clipping(torch.optim.SGD([weight], lr=0.1))
    assert weight.grad.norm().item() == pytest.approx(6)


def test_an_overflow_of_float16_is_no_figure():
    """The infinite gradient of a step that float16 leaves out is not logged: its mean would be infinite all epoch."""
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), math.inf)
    classifier = make_classifier(torch.nn.Identity())
    logged = set()
    classifier.log = lambda name, value, **options: logged.add(name)
    classifier.configure_gradient_clipping(torch.optim.SGD([weight], lr=0.1), gradient_clip_val=1.0)
    assert logged == {"lr"}
