"""The bootstrap: what a draw is, and that its intervals hold what they promise."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medvision.evaluation.bootstrap import draw_weights, most_frequent_class, replicate
from medvision.evaluation.figures import compute, prepare
from medvision.evaluation.intervals import bootstrap_limits, effective_size, proportion, wilson
from medvision.records import Plan

PLAN = Plan(replicates=50, seed=7)


def patients(n=300, m=60, seed=0):
    """Return codes of m patients, each with at least one of n images."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.concatenate([np.arange(m), rng.integers(0, m, n - m)]))


def draws(strata, plan=PLAN, block=16):
    return np.concatenate(list(draw_weights(strata, plan, block)))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("k", [2, 4])
def test_a_replicate_is_the_figures_of_the_drawn_rows(predictions, as_predictions, k, known):
    """Each replicate is what the figures of the drawn patients' images, copied row by row, are."""
    y_true, y_score = predictions(k=k)
    y_score = np.round(y_score, 2)
    given = as_predictions(y_true, y_score, [str(c) for c in range(k)], patients() if known else None)
    names, values = replicate(given, PLAN)
    units = given.groups if known else np.arange(300)
    weights = draws(most_frequent_class(y_true, units, k))
    kept = [i for i, name in enumerate(names) if name not in ("ece", "classwise_ece")]
    for r in (0, 17, 49):
        rows = np.repeat(np.arange(300), weights[r][units].astype(int))
        copied = compute(prepare(y_true[rows], y_score[rows], np.arange(len(rows))), np.ones((1, len(rows))))
        np.testing.assert_allclose(values[r, kept], copied[0, kept], atol=1e-12)


def test_draws_keep_the_size_of_each_stratum():
    """Each draw has as many patients of each class as the sample."""
    strata = np.random.default_rng(0).integers(0, 3, 80)
    for weights in draws(strata):
        assert np.array_equal(np.bincount(strata, weights), np.bincount(strata))


def test_draws_do_not_depend_on_the_block():
    """How many replicates are computed at a time changes none of them."""
    strata = np.arange(40) % 3
    assert np.array_equal(draws(strata, block=50), draws(strata, block=7))


def test_draws_are_those_of_a_bootstrap():
    """A patient is drawn once on average, with the variance of sampling with replacement."""
    weights = draws(np.repeat([0, 1], [10, 30]), Plan(20_000), 5000)
    assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.04)
    assert weights[:, :10].var() == pytest.approx(1 - 1 / 10, abs=0.02)
    assert weights[:, 10:].var() == pytest.approx(1 - 1 / 30, abs=0.02)


def test_two_models_meet_the_same_draws(predictions, as_predictions):
    """Models that are right on the same images have the same replicates of accuracy: their difference is paired."""
    y_true, y_score = predictions()
    sharper = y_score**2 / (y_score**2).sum(axis=1, keepdims=True)
    first, second = (replicate(as_predictions(y_true, s, groups=patients()), PLAN)[1] for s in (y_score, sharper))
    assert np.array_equal(first[:, 0], second[:, 0])
    assert not np.array_equal(first[:, -1], second[:, -1])


def test_another_seed_draws_otherwise(predictions, as_predictions):
    """The seed of the plan decides the draws."""
    given = as_predictions(*predictions(), groups=patients())
    assert np.array_equal(replicate(given, PLAN)[1], replicate(given, PLAN)[1])
    assert not np.array_equal(replicate(given, PLAN)[1], replicate(given, Plan(50, seed=8))[1])


def test_no_class_vanishes(predictions, as_predictions):
    """A class with 2 patients among 100 is in every draw."""
    _, y_score = predictions(n=200)
    y_true = np.concatenate([np.zeros(4, int), 1 + np.arange(196) // 2 % 2])
    names, values = replicate(as_predictions(y_true, y_score, groups=np.arange(200) // 2), Plan(500))
    assert not np.isnan(values[:, names.index("balanced_accuracy")]).any()


def test_the_rarer_of_equally_frequent_classes_counts():
    """A patient with as many images of two classes stands for the rarer one."""
    assert most_frequent_class(np.array([0, 0, 0, 1, 1, 0]), np.array([0, 0, 0, 0, 1, 1]), 2).tolist() == [0, 1]


def test_a_single_patient_never_varies(predictions, as_predictions):
    """With one patient every draw is the sample."""
    _, values = replicate(as_predictions(*predictions(), groups=np.zeros(300, int)), PLAN)
    assert np.ptp(values, axis=0).max() < 1e-12


def test_patients_vary_as_their_effective_size_says(predictions, as_predictions):
    """The spread of the replicates of accuracy is that of the linearised variance between patients."""
    y_true, y_score = predictions(n=600)
    groups = patients(600, 150)
    correct = y_score.argmax(axis=1) == y_true
    _, values = replicate(as_predictions(y_true, y_score, groups=groups), Plan(4000))
    p = correct.mean()
    assert values[:, 0].std() == pytest.approx(np.sqrt(p * (1 - p) / effective_size(correct, groups)), rel=0.1)


def test_memory_is_that_of_a_block(predictions, as_predictions):
    """Four times as many replicates take no more memory than their results."""
    given, peaks = as_predictions(*predictions(n=3000), groups=patients(3000, 1000)), []
    for replicates in (400, 1600):
        tracemalloc.start()
        values = replicate(given, Plan(replicates))[1]
        peaks.append(tracemalloc.get_traced_memory()[1] - values.nbytes)
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def study(rng, n_patients=60, n_images=5):
    """Return labels, scores of class 1 and patients: images of one patient share most of their difficulty."""
    y_true = np.repeat(rng.permutation(n_patients) % 2, n_images)
    groups = np.repeat(np.arange(n_patients), n_images)
    logit = 2.4 * y_true - 1.2 + 1.0 * rng.normal(size=n_patients)[groups] + 0.6 * rng.normal(size=len(groups))
    return y_true, 1 / (1 + np.exp(-logit)), groups


def covered(as_predictions, n_studies, n_patients=60):
    """Return how often intervals hold the true figures, by name, and how often Wilson by image holds accuracy."""
    y_true, score, _ = study(np.random.default_rng(99), 200_000)
    correct = (score > 0.5) == y_true
    truth = {"accuracy": correct.mean(), "auprc": average_precision_score(y_true, score)}
    truth |= {"sensitivity.yes": correct[y_true == 1].mean(), "auroc": roc_auc_score(y_true, score)}
    held, by_image = dict.fromkeys(truth, 0), 0
    for seed in range(n_studies):
        y_true, score, groups = study(np.random.default_rng(seed), n_patients)
        given = as_predictions(y_true, np.column_stack([1 - score, score]), ("no", "yes"), groups)
        names, values = replicate(given, Plan(400))
        correct = given.y_pred == y_true
        sample = compute(prepare(y_true, given.y_score, groups), np.ones((1, n_patients)))[0]
        figures = {
            "accuracy": proportion(correct, groups, values[:, 0]),
            "sensitivity.yes": proportion(
                correct[y_true == 1], groups[y_true == 1], values[:, names.index("sensitivity.yes")]
            ),
        }
        for name in ("auroc", "auprc"):
            place = names.index(name)
            figures[name] = bootstrap_limits(values[:, place], sample[place], n_patients // 2)
        for name, figure in figures.items():
            held[name] += figure.low <= truth[name] <= figure.high
        figure = wilson(int(correct.sum()), len(correct))
        by_image += figure.low <= truth["accuracy"] <= figure.high
    return {name: count / n_studies for name, count in held.items()}, by_image / n_studies


def test_patient_intervals_cover_where_image_intervals_do_not(as_predictions):
    """Of images that resemble each other, intervals by patient hold the truth and Wilson's by image do not."""
    held, by_image = covered(as_predictions, 150)
    assert min(held.values()) > 0.90
    assert by_image < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("n_patients", [30, 60, 120])
def test_patient_intervals_cover_to_the_percent(as_predictions, n_patients):
    """Intervals by patient hold the truth in at least 92 % of the studies, of 30 patients and of 120."""
    held, by_image = covered(as_predictions, 1000, n_patients)
    print(n_patients, held, by_image)
    assert min(held.values()) > 0.92
    assert by_image < 0.80
