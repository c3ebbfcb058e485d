"""What images a model was made for: its own kind is inside, whatever else is outside, and the promise is kept."""

import dataclasses
import functools
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medvision.config import Config
from medvision.data.cache import ImageRows, open_cache
from medvision.data.decode import decode_image, fit_to_square
from medvision.data.phantom import make_phantom
from medvision.errors import DataInvalid
from medvision.evaluation.conformal import conformal_quantile
from medvision.evaluation.domain import (
    domain_distances,
    domain_preprocessing,
    fit_domain,
    measure_distances,
)
from medvision.records import Combination, Domain, Member, PackageInfo, Preprocessing, load_record, save_record

SIDE = 64


def phantoms(folder, seed, patients):
    """Return two slices of each of 3 * ``patients`` heads, as a model takes them."""
    make_phantom(folder, patients_per_class=patients, slices_per_patient=2, image_size=SIDE, seed=seed)
    return np.stack([fit_to_square(decode_image(path), SIDE, 1) for path in sorted(folder.rglob("*.png"))])


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Return train, val and test, each of other heads."""
    folder = tmp_path_factory.mktemp("heads")
    return tuple(phantoms(folder / str(seed), seed, patients) for seed, patients in ((1, 50), (2, 40), (3, 40)))


@pytest.fixture(scope="module")
def domain(heads):
    train, val, _ = heads
    return fit_domain(train, val, units=np.arange(len(val)) // 2)


def to_images(values):
    """Return fields (n, H, W) in gray levels as images."""
    return np.clip(values, 0, 255).astype(np.uint8)[..., np.newaxis]


def uniform(rng, n):
    return to_images(rng.integers(0, 256, (n, SIDE, SIDE)))


def gaussian(rng, n):
    return to_images(rng.normal(rng.uniform(60, 200, (n, 1, 1)), rng.uniform(5, 60, (n, 1, 1)), (n, SIDE, SIDE)))


def salt_and_pepper(rng, n):
    drawn = rng.random((n, SIDE, SIDE))
    return to_images(np.where(drawn < 0.1, 0, np.where(drawn > 0.9, 255, 100)))


def clouds(rng, n):
    fields = np.stack([gaussian_filter(rng.normal(size=(SIDE, SIDE)), rng.uniform(2, 10)) for _ in range(n)])
    spread = fields.std(axis=(1, 2), keepdims=True)
    return to_images(100 + 50 * (fields - fields.mean(axis=(1, 2), keepdims=True)) / spread)


def plain(rng, n):
    return to_images(np.ones((n, SIDE, SIDE)) * np.linspace(0, 255, n)[:, np.newaxis, np.newaxis])


def slopes(rng, n):
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    turn = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    return to_images(128 + rng.uniform(20, 90, (n, 1, 1)) * (x * np.cos(turn) + y * np.sin(turn)))


@functools.cache
def samples():
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def photographs(rng, n, channels=1, side=SIDE):
    """Return parts of scikit-learn's two photographs, small and large ones."""
    found = []
    for number in range(n):
        photo = samples()[number % 2]
        size = int(rng.integers(60, min(photo.shape[:2])))
        top, left = (int(rng.integers(0, length - size)) for length in photo.shape[:2])
        part = np.ascontiguousarray(photo[top : top + size, left : left + size])
        found.append(fit_to_square(part, side, channels))
    return np.stack(found)


def in_colour(rng, n):
    return photographs(rng, n, channels=3)


def test_new_images_of_its_kind_are_inside(domain, heads):
    """Of 240 images of new heads few are outside: with 120 patients in val 1 in 121 is expected."""
    assert (domain_distances(heads[2], domain) > 1).mean() < 0.04


def test_val_is_inside(domain, heads):
    """Where val has too few patients for 99.5 % the threshold is its largest distance, and the record says so."""
    distances = measure_distances(heads[1], domain)
    assert distances.max() == pytest.approx(1, abs=1e-5) and (distances <= 1).all()
    assert (domain.coverage, domain.n_calibration, domain.n_train) == (120 / 121, 120, 300)


@pytest.mark.parametrize(
    "draw",
    [uniform, gaussian, salt_and_pepper, clouds, plain, slopes, photographs, in_colour],
    ids=lambda f: f.__name__,
)
def test_what_is_no_such_image_is_outside(domain, draw):
    """Noise of all kinds, plain fields, slopes and photographs are outside, and far."""
    assert domain_distances(draw(np.random.default_rng(0), 50), domain).min() > 2


def test_altered_images_are_outside(domain, heads):
    """A negative is outside, and so is a coloured copy: neither was learnt from."""
    test = heads[2]
    assert domain_distances(255 - test, domain).min() > 2
    tinted = np.concatenate([test, test // 2, test // 2], axis=3)
    assert domain_distances(tinted, domain).min() > 2


def test_gray_is_gray_in_three_channels(domain, heads):
    """A gray image has the same distance in one channel and in three."""
    test = heads[2][:20]
    once, thrice = (domain_distances(images, domain) for images in (test, np.repeat(test, 3, axis=3)))
    np.testing.assert_allclose(once, thrice, rtol=1e-6)


def test_alone_as_in_a_batch(domain, heads):
    """An image has the same distance alone, as a service asks, and among others, as an evaluation does."""
    among = measure_distances(heads[2], domain)
    alone = [domain_distances(image[np.newaxis], domain)[0] for image in heads[2][:70]]
    np.testing.assert_allclose(alone, among[:70], rtol=1e-9)


def test_the_same_images_give_the_same_domain(domain, heads, tmp_path):
    """Fitted twice it is the same; saved and loaded it is too; it takes less than 100 kB."""
    train, val, _ = heads
    assert fit_domain(train, val, units=np.arange(len(val)) // 2) == domain
    save_record(domain, tmp_path / "domain.json")
    assert load_record(Domain, tmp_path / "domain.json") == domain
    assert (tmp_path / "domain.json").stat().st_size < 100_000


def test_another_descriptor_is_refused(domain, heads):
    """A domain that was fitted to other numbers of an image says so, and what to do."""
    with pytest.raises(DataInvalid, match=r"descriptor 0 .* medvision train --resume"):
        domain_distances(heads[2][:1], dataclasses.replace(domain, descriptor=0))


def test_two_images_are_enough(heads):
    """The smallest dataset has a domain, which promises as little as one val image can."""
    train, val, _ = heads
    small = fit_domain(train[:2], val[:1])
    assert (small.coverage, small.n_calibration) == (0.5, 1)
    assert domain_distances(val[:1], small)[0] <= 1


class Endless:
    """Many images, of which what is asked for at once is noted."""

    def __init__(self, images, n):
        self._images, self._n, self.asked = images, n, []

    def __len__(self):
        return self._n

    def __getitem__(self, part):
        rows = np.arange(self._n)[part] % len(self._images)
        self.asked.append(len(rows))
        return self._images[rows]


def test_memory_is_flat(heads):
    """Of 9,000 images 3,000 from all over the dataset are learnt from, a batch at a time."""
    train = Endless(heads[0], 9000)
    assert fit_domain(train, heads[1][:5]).n_train == sum(train.asked) == 3000
    assert max(train.asked) <= 64


@pytest.mark.parametrize("images", [1, 4], ids=["one image", "many images"])
@pytest.mark.parametrize(("m", "coverage"), [(60, 60 / 61), (250, 0.995)])
def test_promise(m, coverage, images):
    """A random image of a new patient is within the threshold as often as promised, and hardly more often."""
    rng, held = np.random.default_rng(4), []
    for _ in range(1500):
        counts = 1 + rng.integers(0, images, m)
        units = np.repeat(np.arange(m), counts)
        # Images of one patient are alike, and those of patients with many images are unlike others.
        distances = (rng.normal(size=m) + 0.3 * counts)[units] + 0.3 * rng.normal(size=len(units))
        threshold = conformal_quantile(distances, units, coverage)
        new = 1 + rng.integers(0, images, 200)
        held.append((rng.normal(size=200) + 0.3 * new + 0.3 * rng.normal(size=200) <= threshold).mean())
    error = np.std(held) / np.sqrt(len(held))
    assert coverage - 3 * error < np.mean(held) < coverage + 2 / (m + 1) + 3 * error


def test_threshold_by_hand():
    """Of three patients, of 1, 1 and 2 images, at three quarters the threshold is the largest, at half the second."""
    distances, units = np.array([0.1, 0.7, 0.8, 0.4]), np.array([5, 7, 9, 9])
    assert conformal_quantile(distances, units, 3 / 4) == 0.8
    # Weights 1, 1/2, 1, 1/2 of 4: 0.1 and 0.4 have 3/8, with 0.7 it is 5/8.
    assert conformal_quantile(distances, units, 3 / 8) == 0.4
    assert conformal_quantile(distances, units, 1 / 2) == 0.7


def test_the_largest_form_is_held_against_the_domain():
    """Of members that take images in other sizes, the domain is of the largest."""
    forms = [Preprocessing(side, channels, (0,), (1,)) for side, channels in ((96, 3), (224, 1), (224, 3), (64, 3))]
    members = tuple(Member("tiny", {}, form, 1.0, "run", 1, 0.5) for form in forms)
    info = PackageInfo("p", "d", ("no", "yes"), members, Combination(), (), None, "", "", "")
    assert domain_preprocessing(info) == forms[2]


@pytest.mark.slow
def test_chest_radiographs(tmp_path):
    """Of children's chest radiographs 1 in 100 is outside at most; of photographs, gray ones too, 95 in 100 are.

    An image takes less than 2 ms.
    """
    from pipelines.dataset import prepare_dataset

    base = os.environ.get("MEDVISION_TEST_DATA")
    if not base or not Path(base, "chest-xray").is_dir():
        pytest.skip("MEDVISION_TEST_DATA does not have chest-xray")
    dataset = {"path": Path(base, "chest-xray"), "patient_pattern": r"(person\d+)_|(NORMAL2-IM-\d+)|(IM-\d+)"}
    config = Config.model_validate({"dataset": dataset, "paths": {"state": tmp_path}})
    found = prepare_dataset(config)
    images = open_cache(found.manifest, image_size=224, channels=3, folder=tmp_path, workers=1)
    train, val, test = (ImageRows(images, found.split.indices(side)) for side in ("train", "val", "test"))
    groups = found.manifest.rows.group.to_numpy()
    domain = fit_domain(train, val, units=groups[found.split.indices("val")])
    assert len(json.dumps(dataclasses.asdict(domain))) < 100_000
    assert (measure_distances(test, domain) > 1).mean() <= 0.01
    for channels in (1, 3):
        strange = photographs(np.random.default_rng(1), 500, channels, 224)
        assert (measure_distances(strange, domain) > 1).mean() >= 0.95
    one, start = test[:1], time.process_time()
    for _ in range(200):
        domain_distances(one, domain)
    assert (time.process_time() - start) / 200 < 0.002
