"""From data and settings to a trained network: the recipe, and what Lightning is told."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from medvision.config import PerformanceConfig, TrainingConfig
from medvision.data.loading import EpochSampler
from medvision.errors import ConfigInvalid
from medvision.models.catalog import CatalogEntry
from medvision.training import fit as fit_module
from medvision.training.fit import choose_embedding_precision, choose_precision, resolve_recipe
from medvision.training.snapshots import load_best

ENTRY = CatalogEntry("simple_cnn", "own", 64, "partial", "adamax", 2e-3, "linear")


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().double() for parameter in network.parameters()])


@pytest.fixture
def last_weights(train, build_without_norm, tmp_path):
    """Train the network without norms for three epochs; return its weights after the last of them."""

    def run(network=None, **recipe):
        recipe = {"epochs": 3, "optimizer": "sgd", "lr": 0.05, "save_every": 3, **recipe}
        train(network or build_without_norm(), **recipe)
        state = torch.load(tmp_path / "checkpoints" / "epoch_002.pth", weights_only=True)["model_state_dict"]
        return torch.cat([tensor.flatten().double() for tensor in state.values()])

    return run


def test_training_learns(train, recorder):
    """On classes that differ in brightness the loss falls, and val accuracy becomes better than chance."""
    result = train(epochs=6)
    losses = recorder.figures("train_loss")
    assert losses[-1] < losses[0]
    assert result.best_val_accuracy > 0.6


def test_open_settings_come_from_the_catalog():
    """What the settings leave open, the model's entry in the catalog decides."""
    resolved = resolve_recipe(TrainingConfig(), ENTRY)
    assert (resolved.strategy, resolved.optimizer, resolved.lr) == ("partial", "adamax", 2e-3)


def test_given_settings_win_over_the_catalog(configure):
    """What the settings say, the catalog does not change."""
    training = configure(strategy="full", optimizer="sgd", lr=0.1).training
    assert resolve_recipe(training, ENTRY).model_dump() == training.model_dump()


def test_precision_is_chosen_with_a_reason(monkeypatch):
    """Automatic precision is 32 bits where there is no CUDA device, and says why."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    precision, reason = choose_precision(PerformanceConfig(precision="auto"))
    assert precision == "32-true"
    assert "no CUDA device" in reason


@pytest.mark.parametrize(("asked", "name"), [("32", "32-true"), ("bf16", "bf16-mixed"), ("16", "16-mixed")])
def test_precision_that_is_asked_for_is_taken(asked, name):
    """A precision in the settings is used, and the reason says so."""
    assert choose_precision(PerformanceConfig(precision=asked)) == (name, "performance.precision says so")


def test_the_reason_of_the_precision_is_logged(train, caplog):
    """The log of a training says which precision was chosen, and why."""
    with caplog.at_level(logging.INFO, "medvision"):
        train(epochs=1)
    assert "Precision 32-true: no CUDA device" in caplog.text


@pytest.mark.parametrize(("asked", "half"), [("32", False), ("bf16", True), ("16", False)])
def test_embedding_precision_that_is_asked_for_is_taken(asked, half):
    """Embeddings are computed in bfloat16 where the settings ask for it, and in float32 where they ask for that."""
    assert choose_embedding_precision(PerformanceConfig(precision=asked))[0] is half


def test_training_in_bfloat16_works(train, recorder, configure):
    """Mixed precision gives finite figures and float32 weights."""
    train(config=configure(performance={"precision": "bf16"}))
    assert np.isfinite(recorder.figures("train_loss")).all()


def test_a_device_that_is_not_here_is_an_error_of_the_settings(train, configure):
    """Asking for a GPU where there is none names the setting."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigInvalid, match=r"performance\.accelerator=gpu"):
        train(config=configure(performance={"accelerator": "gpu"}))


def test_nothing_advertises_on_the_screen(train, capfd, recwarn):
    """Lightning's tips and advertisements do not show."""
    train(epochs=1)
    assert "Tip" not in capfd.readouterr().err
    assert [str(warning.message) for warning in recwarn] == []


def test_training_stops_early(train, recorder):
    """With an improvement that is never large enough, training stops ``patience`` epochs after the first."""
    result = train(epochs=9, patience=2, min_delta=1.0)
    assert result.n_epochs == len(recorder.epochs) == 3


@pytest.mark.parametrize("min_delta", [0.0, 0.02, 0.2])
def test_patience_counts_epochs_without_enough_improvement(train, recorder, min_delta):
    """Training ends at the first epoch that is the second in a row without an improvement above min_delta."""
    train(epochs=12, patience=2, min_delta=min_delta, lr=0.01)
    best, waited, expected = -1.0, 0, 0
    for accuracy in recorder.figures("val_accuracy"):
        expected += 1
        best, waited = (accuracy, 0) if accuracy - min_delta > best else (best, waited + 1)
        if waited == 2:
            break
    assert len(recorder.epochs) == expected
    assert waited == 2 or expected == 12


def test_resuming_what_had_stopped_early_trains_no_more(train, recorder):
    """A run that stopped early is at its end: resuming it gives the same result and records nothing."""
    recipe = {"epochs": 9, "patience": 2, "min_delta": 1.0}
    first = train(**recipe)
    assert train(**recipe, resume=True) == first
    assert len(recorder.epochs) == 3


def test_resuming_a_finished_run_trains_no_more(train, recorder):
    """A run that used all its epochs is at its end as well."""
    first = train(epochs=2)
    assert train(epochs=2, resume=True) == first
    assert len(recorder.epochs) == 2


def test_two_trainings_are_equal(train, build):
    """The same seed, data and settings give the same weights to the last bit, dropout and augmentation included."""
    one, other = build(head="medical"), build(head="medical")
    train(one)
    torch.rand(7)  # whatever ran before
    train(other)
    assert torch.equal(weights_of(one), weights_of(other))


def test_another_seed_trains_otherwise(train, build):
    """Another seed gives other weights."""
    one, other = build(), build()
    train(one)
    train(other, seed=7)
    assert not torch.equal(weights_of(one), weights_of(other))


@pytest.mark.parametrize("imbalance", ["none", "weights"])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_accumulation_equals_a_larger_batch(last_weights, make_data, imbalance, clip):
    """Four batches of 4 with one step give the weights of a batch of 16, to 1e-6; with class weights and clipping."""
    data = make_data((24, 16, 8))
    recipe = {"data": data, "imbalance": imbalance, "gradient_clip": clip}
    large = last_weights(batch_size=16, **recipe)
    small = last_weights(batch_size=4, accumulate=4, **recipe)
    torch.testing.assert_close(small, large, rtol=0, atol=1e-6)


def test_clipping_is_passed_on(last_weights):
    """A small training.gradient_clip changes what is learned."""
    assert not torch.equal(last_weights(gradient_clip=0.0), last_weights(gradient_clip=1e-3))


def test_the_sampler_balances_the_classes(train, make_data, monkeypatch):
    """With imbalance=sampler each class is drawn about equally often, however rare it is."""
    data = make_data((60, 6, 6))
    drawn = []
    draw = EpochSampler.__iter__

    def record(self):
        tickets = list(draw(self))
        drawn.extend(position for _, position in tickets)
        return iter(tickets)

    monkeypatch.setattr(EpochSampler, "__iter__", record)
    train(data=data, imbalance="sampler", epochs=6)
    shares = np.bincount(data.labels[data.train][drawn], minlength=3) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.08)


def test_the_head_strategy_leaves_the_backbone_untouched(train, build, configure):
    """Strategy head changes the head and no weight and no statistic of the backbone."""
    network, before = build(head="medical"), build(head="medical").state_dict()
    train(network, strategy="head", epochs=3)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("head.")}


def test_the_head_strategy_scores_val_as_the_whole_network_does(train, build, make_data):
    """The best accuracy of a trained head is that of the whole network on the images of val."""
    network, data = build(), make_data(n_val=20)
    result = train(network, data, strategy="head", epochs=3)
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(data.images[data.val]).permute(0, 3, 1, 2))
    assert result.best_val_accuracy == pytest.approx((logits.argmax(dim=1).numpy() == data.labels[data.val]).mean())


def test_images_as_they_are_are_embedded_in_full_precision(train, configure, monkeypatch):
    """Whatever the precision of the augmented views, val, and train as it is, are embedded once, in float32."""
    asked = []
    embed = fit_module.embed_views

    def record(network, images, rows, **settings):
        asked.append((len(rows), settings["views"], settings["half"]))
        return embed(network, images, rows, **settings)

    monkeypatch.setattr(fit_module, "embed_views", record)
    train(config=configure(performance={"precision": "bf16"}, strategy="head", views=3))
    assert asked == [(60, range(1), False), (48, range(1, 3), True)]


def test_partial_trains_the_last_stages_alone(train, build):
    """Strategy partial changes the head and the last stage; weights and statistics before it stay."""
    network, before = build(), build().state_dict()
    train(network, strategy="partial", unfreeze_stages=1)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith(("head.", "backbone.stages.3.")) for name in changed)


def test_a_network_in_evaluation_mode_is_trained_as_one_in_training_mode(train, build):
    """Batch norm and dropout train whatever mode the network was left in."""
    one, other = build(head="medical"), build(head="medical").eval()
    train(one)
    train(other)
    assert torch.equal(weights_of(one), weights_of(other))


@pytest.mark.parametrize("strategy", ["full", "head"])
def test_gray_images_train_a_colour_network(train, make_data, strategy):
    """Images with one channel train a network of three."""
    assert train(data=make_data(channels=1), strategy=strategy).n_epochs == 2


def test_gray_images_train_a_gray_network(train, build, make_data):
    """Images with one channel train a network of one."""
    assert train(build(channels=1), make_data(channels=1)).n_epochs == 2


def test_two_classes_train(train, build, make_data):
    """A task of two classes trains."""
    assert train(build(n_classes=2), make_data((16, 16))).n_epochs == 2


def test_a_last_batch_of_one_image_is_left_out(train, make_data):
    """17 images in batches of 16 train: batch norm never sees a batch of one."""
    assert train(data=make_data((6, 6, 5))).n_epochs == 2


def test_channels_last_changes_nothing_but_speed(train, build, configure):
    """Training on the channels_last layout gives the same weights, up to rounding."""
    one, other = build(), build()
    train(one, epochs=1, optimizer="sgd")
    train(other, config=configure(performance={"channels_last": True}, epochs=1, optimizer="sgd"))
    torch.testing.assert_close(weights_of(one), weights_of(other), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_augmenting_in_processes_changes_nothing(train, build, configure):
    """With processes that augment images, the weights are the same to the last bit."""
    one, other = build(), build()
    train(one)
    train(other, config=configure(performance={"loader_workers": 2}))
    assert torch.equal(weights_of(one), weights_of(other))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "head"])
def test_compiled_networks_train_and_load(train, build, configure, tmp_path, strategy):
    """torch.compile trains as without it, and leaves no name of its own in the checkpoint."""
    one, other = build(), build()
    train(one, epochs=1, strategy=strategy, optimizer="sgd")
    train(other, config=configure(performance={"compile": True}, epochs=1, strategy=strategy, optimizer="sgd"))
    torch.testing.assert_close(weights_of(one), weights_of(other), rtol=1e-3, atol=1e-5)
    assert load_best(tmp_path / "checkpoints")["model_state_dict"].keys() == build().state_dict().keys()
