"""The folds of a cross-validation: each image tested once, nobody on two sides."""

import numpy as np
import pytest

from medvision.errors import DataInvalid
from medvision.training.folds import make_folds, part_by_group

CLASSES = ("a", "b", "c", "d", "e")


def dataset(n_groups=60, k=3, seed=0):
    """Return row numbers of some manifest, labels, and groups of one to six rows."""
    random = np.random.default_rng(seed)
    groups = random.permutation(np.repeat(np.arange(n_groups), random.integers(1, 7, n_groups)))
    return np.sort(random.permutation(10 * len(groups))[: len(groups)]), (groups % k), groups


@pytest.fixture(params=[3, 5, 10])
def case(request):
    rows, labels, groups = dataset()
    return rows, labels, groups, make_folds(rows, labels, groups, classes=CLASSES, folds=request.param, seed=42)


def at(rows, part):
    """Return the positions of row numbers."""
    return np.searchsorted(rows, part)


def test_every_image_is_tested_once(case):
    """The test parts are all rows, each once."""
    rows, _, _, folds = case
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), rows)


def test_a_fold_is_all_rows(case):
    """Train, val and test of a fold are all rows, none on two sides; val is another part than test."""
    rows, _, _, folds = case
    for fold in folds:
        assert np.array_equal(np.sort(np.concatenate([fold.train, fold.val, fold.test])), rows)
        assert len(fold.val) > 0 and len(fold.train) > 0


def test_every_part_is_val_once(case):
    """Each part serves as val in one fold, and as test in another."""
    _, _, _, folds = case
    tested, chosen_on = ({tuple(getattr(fold, side)) for fold in folds} for side in ("test", "val"))
    assert tested == chosen_on
    assert len(tested) == len(folds)


def test_no_group_is_parted(case):
    """All images of a patient are on one side of every fold."""
    rows, _, groups, folds = case
    for fold in folds:
        sides = [set(groups[at(rows, part)]) for part in (fold.train, fold.val, fold.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))


def test_strata_are_kept(case):
    """Every part has about the share of every class that all rows have."""
    rows, labels, _, folds = case
    overall = np.bincount(labels) / len(labels)
    for fold in folds:
        share = np.bincount(labels[at(rows, fold.test)], minlength=3) / len(fold.test)
        assert np.abs(share - overall).max() < 0.15


def test_the_seed_decides():
    """The same seed gives the same folds, another one others."""
    first, again, other = (make_folds(*dataset(), classes=CLASSES, folds=5, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("n", "hint"), [(4, "evaluation.folds=4"), (2, "Add images of it")])
def test_too_few_groups_are_named(n, hint):
    """A class with fewer patients than folds is named with their number and what would do; never fewer than 3 folds."""
    groups = np.arange(60)
    labels = np.where(groups < n, 1, 0)
    with pytest.raises(DataInvalid, match=f"5 folds .* b has {n}. .*{hint}") as refusal:
        make_folds(groups, labels, groups, classes=CLASSES, folds=5, seed=42)
    assert "folds=3" not in str(refusal.value)


def test_images_of_one_patient_are_no_patients():
    """A class of many images of a few patients is refused as one of few."""
    groups = np.concatenate([np.arange(40), np.repeat([40, 41], 30)])
    with pytest.raises(DataInvalid, match="b has 2"):
        make_folds(np.arange(100), (groups >= 40).astype(int), groups, classes=CLASSES, folds=5, seed=42)


def test_every_part_has_every_class():
    """Also where large patients have images of several classes, some of them rare: or the dataset is refused."""
    n_refused = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(25), random.geometric(0.1, 25))
        labels = np.minimum(random.geometric(0.5, len(groups)) - 1, 4)
        try:
            folds = make_folds(np.arange(len(groups)), labels, groups, classes=CLASSES, folds=5, seed=42)
        except DataInvalid:
            n_refused += 1
            continue
        assert all(set(labels[fold.test]) == set(labels) for fold in folds)
    assert n_refused < 30


def test_what_cannot_be_parted_is_refused():
    """Four patients of whom one has both classes: no three parts with both classes each."""
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 0, 3])
    assert part_by_group(labels, groups, parts=3, seed=0) is None
    with pytest.raises(DataInvalid, match="b has 2"):
        make_folds(np.arange(6), labels, groups, classes=CLASSES, folds=3, seed=42)


def test_no_way_to_part_is_said():
    """Each class has three patients, but no three parts of the patients have all classes: refused, with a way out."""
    labels = np.array([3, 1, 0, 3, 3, 2, 0, 3, 2, 0, 0, 1, 2, 1, 3])
    with pytest.raises(DataInvalid, match="into 3 folds that each have every class"):
        make_folds(np.arange(15), labels, np.repeat(np.arange(5), 3), classes=CLASSES, folds=3, seed=42)
