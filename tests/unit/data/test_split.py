"""No patient and no image on two sides, whatever the dataset looks like."""

import numpy as np
import pytest

from medvision.config import DatasetConfig
from medvision.data.manifest import load_or_build_manifest
from medvision.data.split import DROPPED, count_classes, find_leaks, keep_sides, make_split, save_split
from medvision.errors import DataInvalid, SplitLeakage
from medvision.records import SPLITS

CHEST_PATTERN = r"(person\d+)_|(NORMAL2-IM-\d+)|(IM-\d+)"


def assert_clean(manifest, split):
    """Check that the sides share no patient and no pixels."""
    for column in ("patient_key", "pixel_hash"):
        seen = {side: set(manifest.rows[column].iloc[split.indices(side)]) - {""} for side in SPLITS}
        assert not seen["train"] & seen["val"] and not seen["train"] & seen["test"] and not seen["val"] & seen["test"]


def fractions(split):
    return np.array([len(split.indices(side)) for side in SPLITS]) / (split.sides != DROPPED).sum()


def draw(manifest_of, seed, *, given):
    """Return a random manifest: some hundred images, patients of any size, repeats, and a split if asked for."""
    random = np.random.default_rng(seed)
    n, k = int(random.integers(80, 500)), int(random.integers(2, 5))
    patients = random.integers(0, max(20, n // random.integers(1, 8)), n)
    labels = random.integers(0, k, n)
    if random.random() < 0.7:
        labels = patients % k
    pixels = np.where(random.random(n) < 0.1, random.integers(0, 40, n), np.arange(n) + 1000)
    known = random.random(n) < random.choice([0.0, 0.5, 1.0])
    sides = random.choice(["train", "val", "test"], n, p=[0.7, 0.1, 0.2])
    if given == "patients":
        sides = np.array(["train", "train", "train", "val", "test"])[(patients // k) % 5]
    if given == "no val":
        sides = np.where(sides == "val", "train", sides)
    return manifest_of(
        labels,
        patients=[f"p{p}" if yes else "" for p, yes in zip(patients, known, strict=True)],
        pixels=[f"x{x}" for x in pixels],
        given=sides if given else None,
    )


@pytest.mark.parametrize("given", [None, "random", "patients", "no val"])
@pytest.mark.parametrize("on_leak", ["drop", "regroup"])
def test_no_patient_and_no_pixels_on_two_sides(manifest_of, given, on_leak):
    """On random datasets no patient and no pixel hash is ever on two sides; what can't be split says so."""
    n_made = 0
    for seed in range(30):
        manifest = draw(manifest_of, seed, given=given)
        try:
            split = make_split(manifest, DatasetConfig(on_leak=on_leak, seed=seed))
        except DataInvalid as refusal:
            assert "Class" in str(refusal)
            continue
        n_made += 1
        assert_clean(manifest, split)
        assert set(split.sides) <= {*SPLITS, DROPPED}
        for side in SPLITS:
            assert all(count_classes(split.indices(side), manifest).values())
    assert n_made >= 5


def test_70_15_15(manifest_of):
    """Single images are dealt 70/15/15, in each class, to within one image."""
    labels = np.repeat([0, 1, 2], [1000, 300, 47])
    manifest = manifest_of(labels)
    split = make_split(manifest, DatasetConfig())
    for label in range(3):
        counts = [(split.sides[labels == label] == side).sum() for side in SPLITS]
        assert np.abs(np.array(counts) - np.array([0.7, 0.15, 0.15]) * (labels == label).sum()).max() <= 1
    assert not (split.sides == DROPPED).any()


def test_70_15_15_with_patients(manifest_of):
    """With patients of 1 to 8 images the sides come within 3 points of 70/15/15, in each class."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        patients = np.repeat(np.arange(300), random.integers(1, 9, 300))
        labels = patients % 3
        manifest = manifest_of(labels, patients=[f"p{p}" for p in patients])
        split = make_split(manifest, DatasetConfig(seed=seed))
        assert np.abs(fractions(split) - [0.7, 0.15, 0.15]).max() < 0.03
        for label in range(3):
            shares = [(split.sides[labels == label] == side).mean() for side in SPLITS]
            assert np.abs(np.array(shares) - [0.7, 0.15, 0.15]).max() < 0.04


def test_fractions_are_settings(manifest_of):
    """val_fraction and test_fraction are kept to."""
    manifest = manifest_of([0, 1] * 500)
    split = make_split(manifest, DatasetConfig(val_fraction=0.1, test_fraction=0.3))
    assert fractions(split) == pytest.approx([0.6, 0.1, 0.3], abs=0.005)
    with pytest.raises(DataInvalid, match="leave something to train on"):
        make_split(manifest, DatasetConfig(val_fraction=0.5, test_fraction=0.5))


def test_seed(manifest_of):
    """The same seed gives the same split and fingerprint, another seed others."""
    manifest = manifest_of([0, 1] * 100)
    first, again, other = (make_split(manifest, DatasetConfig(seed=seed)) for seed in (42, 42, 43))
    assert np.array_equal(first.sides, again.sides) and first.fingerprint == again.fingerprint
    assert not np.array_equal(first.sides, other.sides) and first.fingerprint != other.fingerprint
    assert DatasetConfig().seed == 42


def test_given_split_is_respected(manifest_of):
    """A given split without leaks stays as it is, whatever its proportions."""
    given = np.array(["train"] * 10 + ["val"] * 20 + ["test"] * 4)
    split = make_split(manifest_of([0, 1] * 17, given=given), DatasetConfig())
    assert split.sides.tolist() == given.tolist()


def leaking(manifest_of):
    """Patient p is in train (0, 1) and test (8), q in train (2) and val (6); images 3 and 9 are equal."""
    return manifest_of(
        [0, 1] * 6,
        patients=["p", "p", "q", "c", "d", "e", "q", "g", "p", "i", "j", "k"],
        pixels=["0", "1", "2", "same", "4", "5", "6", "7", "8", "same", "10", "11"],
        given=["train"] * 6 + ["val"] * 2 + ["test"] * 4,
    )


def test_leaks_are_found(manifest_of):
    """Each leak is counted on the side that is held out, by patient and by pixels."""
    found = {(leak.side, leak.other, leak.by): leak.rows.tolist() for leak in find_leaks(leaking(manifest_of))}
    assert {key: rows for key, rows in found.items() if rows} == {
        ("test", "train", "patient"): [8],
        ("test", "train", "pixels"): [9],
        ("val", "train", "patient"): [6],
    }


def test_on_leak_drop(manifest_of):
    """The leaking training rows are dropped; val and test stay as they were given."""
    manifest = leaking(manifest_of)
    split = make_split(manifest, DatasetConfig(on_leak="drop"))
    assert np.flatnonzero(split.sides == DROPPED).tolist() == [0, 1, 2, 3]
    assert split.indices("val").tolist() == [6, 7] and split.indices("test").tolist() == [8, 9, 10, 11]
    assert_clean(manifest, split)


def test_on_leak_fail(manifest_of):
    """on_leak=fail stops with exit 5, counts, and both ways on; it lets a clean split pass."""
    with pytest.raises(SplitLeakage, match=r"1 test images share their patient with train.*drop.*regroup") as refusal:
        make_split(leaking(manifest_of), DatasetConfig(on_leak="fail"))
    assert refusal.value.exit_code == 5
    clean = manifest_of([0, 1] * 6, given=["train", "train", "val", "val", "test", "test"] * 2)
    assert not (make_split(clean, DatasetConfig(on_leak="fail")).sides == DROPPED).any()


def test_on_leak_regroup(manifest_of):
    """on_leak=regroup deals the whole dataset anew, and only when it leaks."""
    given = np.array(["train", "val", "test"] * 100)
    labels, patients = [0, 1] * 150, [f"p{i // 4}" for i in range(300)]
    leaky = manifest_of(labels, patients=patients, given=given)
    split = make_split(leaky, DatasetConfig(on_leak="regroup"))
    assert_clean(leaky, split)
    assert fractions(split) == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    clean = make_split(manifest_of(labels, given=given), DatasetConfig(on_leak="regroup"))
    assert clean.sides.tolist() == given.tolist()


def test_val_is_carved_from_train(manifest_of):
    """Train and test folders only: val is made from whole patients of train, 15 points of the whole; test stays."""
    given = np.array(["train"] * 850 + ["test"] * 150)
    patients = [f"p{i // 5}" for i in range(1000)]
    manifest = manifest_of(np.arange(1000) // 5 % 2, patients=patients, given=given)
    split = make_split(manifest, DatasetConfig())
    assert ((split.sides == "test") == (given == "test")).all()
    assert len(split.indices("val")) == pytest.approx(150, abs=10)
    assert_clean(manifest, split)


def test_test_is_carved_from_train(manifest_of):
    """Train and val folders only: test is made from train; val stays."""
    given = np.array(["train"] * 850 + ["val"] * 150)
    split = make_split(manifest_of([0, 1] * 500, given=given), DatasetConfig())
    assert ((split.sides == "val") == (given == "val")).all()
    assert len(split.indices("test")) == pytest.approx(150, abs=5)


def test_conflicting_labels_teach_nothing(manifest_of):
    """Images with the same pixels under two labels are neither trained on nor chosen by."""
    pixels = [str(i) for i in range(100)]
    pixels[1] = pixels[0]
    split = make_split(manifest_of([0, 1] * 50, pixels=pixels), DatasetConfig())
    assert np.flatnonzero(split.sides == DROPPED).tolist() == [0, 1]


def test_sides_that_are_kept(manifest_of):
    """With patients that are known later the test side stays, and rows of train and val that leak are left out."""
    labels, patients = [0, 1] * 100, [f"p{i // 2 % 50}" for i in range(200)]
    earlier = make_split(manifest_of(labels), DatasetConfig())
    later = manifest_of(labels, patients=patients)
    split = keep_sides(earlier, later)
    assert_clean(later, split)
    assert ((split.sides == "test") == (earlier.sides == "test")).all()
    changed = split.sides[split.sides != earlier.sides]
    assert set(changed) == {DROPPED} and split.fingerprint != earlier.fingerprint


def test_all_labels_conflict(manifest_of):
    """Where every image stands under two classes it is said so, whether or not a test side is given."""
    pixels = [str(i // 2) for i in range(20)]
    with pytest.raises(DataInvalid, match="all 20 images have the same pixels as one of another class"):
        make_split(manifest_of([0, 1] * 10, pixels=pixels), DatasetConfig())
    given = ["train"] * 20 + ["test"] * 2
    with pytest.raises(DataInvalid, match=r"20 of 22 images have the same pixels.*the others are on other sides"):
        make_split(manifest_of([0, 1] * 11, pixels=[*pixels, "x", "y"], given=given), DatasetConfig())


@pytest.mark.parametrize(("patients", "unit"), [(None, "distinct images"), (["a", "b"], "patients")])
def test_too_few_patients(manifest_of, patients, unit):
    """A class with fewer patients than sides is named, with its count and the count it needs."""
    known = None if patients is None else [*(f"p{i}" for i in range(30)), *patients]
    manifest = manifest_of([0] * 30 + [1] * 2, patients=known, classes=("no", "rare"))
    with pytest.raises(DataInvalid, match=f"Class rare has 2 {unit}; at least 3 are needed") as refusal:
        make_split(manifest, DatasetConfig())
    assert refusal.value.exit_code == 5


def test_a_class_without_images(manifest_of):
    """A class of which no image could be read is named like any other that is too small."""
    with pytest.raises(DataInvalid, match="Class rare has 0 distinct images; at least 3 are needed"):
        make_split(manifest_of([0, 1] * 15, classes=("no", "yes", "rare")), DatasetConfig())


def test_many_images_of_few_patients(manifest_of):
    """It is patients that count, not images."""
    manifest = manifest_of([0, 1] * 50, patients=[f"p{i % 4}" for i in range(100)])
    with pytest.raises(DataInvalid, match="has 2 patients"):
        make_split(manifest, DatasetConfig())


def test_three_patients_are_enough(manifest_of):
    """With three patients a class each side gets one, whatever their sizes."""
    patients = [f"p{p}" for p in np.repeat(range(6), [1, 50, 3, 7, 7, 90])]
    labels = np.repeat(range(6), [1, 50, 3, 7, 7, 90]) // 3
    manifest = manifest_of(labels, patients=patients)
    for seed in range(20):
        split = make_split(manifest, DatasetConfig(seed=seed))
        assert all(all(count_classes(split.indices(side), manifest).values()) for side in SPLITS)


def test_patients_with_images_of_every_class(manifest_of):
    """Patients who each have images of all classes are split like others; so is a class that only they have."""
    manifest = manifest_of([0, 0, 1] * 100, patients=[f"p{i // 3}" for i in range(300)])
    split = make_split(manifest, DatasetConfig())
    assert_clean(manifest, split)
    assert fractions(split) == pytest.approx([0.7, 0.15, 0.15], abs=0.02)


def test_class_that_vanishes_from_a_side(manifest_of):
    """A class that is on one side only after dropping is named, with the way out."""
    manifest = manifest_of(
        [0, 0, 0, 1, 1, 1],
        patients=["a", "b", "c", "d", "d", "d"],
        given=["train", "val", "test"] * 2,
    )
    with pytest.raises(DataInvalid, match=r"Class class1 has no image on the train side.*regroup"):
        make_split(manifest, DatasetConfig())


def test_saved_split(manifest_of, tmp_path):
    """The saved table has the side of each image_id."""
    import pandas as pd

    manifest = manifest_of([0, 1] * 20)
    split = make_split(manifest, DatasetConfig())
    save_split(split, manifest, tmp_path)
    table = pd.read_parquet(tmp_path / "split.parquet")
    assert table.image_id.tolist() == manifest.rows.image_id.tolist() and table.side.tolist() == split.sides.tolist()


def test_fingerprint_follows_the_sides(manifest_of):
    """A split that differs in one row has another fingerprint."""
    given = ["train", "train", "val", "val", "test", "test"] * 2
    moved = [*given[:-2], "train", "test"]
    splits = [make_split(manifest_of([0, 1] * 6, given=sides), DatasetConfig()) for sides in (given, moved)]
    assert splits[0].fingerprint != splits[1].fingerprint


@pytest.fixture(scope="module")
def real_state(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.mark.slow
def test_chest_xray(real_data, settings, real_state):
    """Chest X-rays: 510 of 879 test images have their patient in train; 2,434 of 4,099 train rows are left."""
    config = settings(
        real_data("chest-xray"),
        real_state,
        dataset={"name": "chest", "patient_pattern": CHEST_PATTERN},
        performance={"workers": 2},
    )
    manifest = load_or_build_manifest(config)
    found = {(leak.side, leak.other, leak.by): len(leak.rows) for leak in find_leaks(manifest)}
    assert found["test", "train", "patient"] == 510
    split = make_split(manifest, config.dataset)
    assert manifest.unmatched == 0 and manifest.rows.patient_key.nunique() == 3118
    assert len(split.indices("test")) == 879
    assert len(split.indices("train")) == 2434
    assert_clean(manifest, split)


@pytest.mark.slow
def test_brain_mri(real_data, settings, real_state):
    """Brain MRI: 251 of 394 test images are pixel-identical to a training image, and none is left in train."""
    config = settings(real_data("brain-mri"), real_state, dataset={"name": "brain"}, performance={"workers": 2})
    manifest = load_or_build_manifest(config)
    found = {(leak.side, leak.other, leak.by): len(leak.rows) for leak in find_leaks(manifest)}
    assert found["test", "train", "pixels"] == 251
    split = make_split(manifest, config.dataset)
    assert len(split.indices("test")) == 394
    assert len(split.indices("train")) + len(split.indices("val")) == 2626
    assert_clean(manifest, split)
