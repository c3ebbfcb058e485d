"""Outliers, doubtful labels, shortcuts and traits: what is planted is found, and clean data raise no alarm."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from medvision.auditing.embed import describe, embed_images, reduce_dimensions
from medvision.auditing.labels import confident_errors, find_label_doubts
from medvision.auditing.outliers import find_outliers
from medvision.auditing.shortcuts import measure_shortcuts
from medvision.auditing.traits import load_or_measure_traits
from medvision.data.manifest import load_or_build_manifest


def outliers_of(thumbnails):
    embeddings = reduce_dimensions(describe(thumbnails), "", is_learned=False)
    return find_outliers(embeddings.points, embeddings.residuals)


@pytest.fixture(scope="module")
def clustered():
    """Points of three classes that a classifier tells apart, 20 patients of 15 images each."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 300)
    centres = random.normal(size=(3, 20)) * 1.5
    return centres[labels] + random.normal(size=(900, 20)), labels, np.repeat(np.arange(60), 15)


@pytest.fixture(scope="module")
def measured(phantom, tmp_path_factory, settings):
    config = settings(phantom, tmp_path_factory.mktemp("state"))
    manifest = load_or_build_manifest(config)
    return manifest, load_or_measure_traits(manifest, config.dataset_dir, workers=1)


def test_clean_data_have_no_outliers(thumbnails):
    """Phantoms among phantoms are no outliers."""
    assert len(outliers_of(thumbnails)) == 0


@pytest.mark.parametrize("n", [51, 60, 100, 180])
def test_few_images_have_no_outliers(thumbnails, n):
    """Of a few phantoms drawn at random less than 2 % are called outliers, over twenty draws."""
    random = np.random.default_rng(n)
    drawn = [thumbnails[random.permutation(len(thumbnails))[:n]] for _ in range(20)]
    assert sum(len(outliers_of(some)) for some in drawn) < 0.02 * 20 * n


@pytest.mark.parametrize("n", [60, 180])
def test_photo_among_slices(thumbnails, n):
    """A picture of another kind is found, and it alone."""
    y, x = np.mgrid[:64, :64]
    photo = (127 + 120 * np.sign(np.sin(x / 3.0) * np.sin(y / 5.0))).astype(np.uint8)
    some = np.random.default_rng(0).permutation(thumbnails)[:n]
    assert outliers_of(np.concatenate([some, photo[None]])).tolist() == [n]


def test_flipped_labels_are_found(clustered):
    """Of 5 % wrong labels most are found, and most of what is found is wrong."""
    points, labels, groups = clustered
    random = np.random.default_rng(1)
    wrong = random.choice(900, 45, replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + random.integers(1, 3, 45)) % 3
    doubts = find_label_doubts(points, given, groups)
    hits = np.isin(doubts.rows, wrong)
    assert hits.mean() >= 0.9
    assert hits.sum() >= 0.7 * 45
    assert (doubts.looks_like == labels[doubts.rows])[hits].all()


def test_a_poor_classifier_is_not_believed(clustered):
    """Where classes can't be told apart nothing is said of labels."""
    points, labels, groups = clustered
    assert find_label_doubts(np.random.default_rng(2).normal(size=points.shape), labels, groups) is None


def test_too_few_groups_for_folds(clustered):
    """Where a class has few patients nothing is said of labels."""
    points, labels, _ = clustered
    assert find_label_doubts(points, labels, labels) is None


def test_the_surest_contradiction_comes_first():
    """Doubts are ranked by how much surer the classifier is of another class."""
    probabilities = np.array([[0.99, 0.01], [0.9, 0.1], [0.1, 0.9], [0.01, 0.99], [0.05, 0.95]] * 4)
    labels = np.array([0, 0, 1, 1, 1] * 4)
    labels[3], labels[4] = 0, 0
    rows, looks_like = confident_errors(probabilities, labels)
    assert rows.tolist() == [3, 4] and looks_like.tolist() == [1, 1]


def test_clean_phantoms_have_no_shortcut(measured):
    """Of images that were all made alike, no file trait tells the class."""
    manifest, traits = measured
    shortcuts = measure_shortcuts(traits, manifest.rows.label.to_numpy(), np.arange(len(manifest.rows)) // 2)
    assert [each.trait for each in shortcuts if each.is_far_above_chance and each.trait != "8x8 thumbnail"] == []


@pytest.mark.parametrize("trait", ["file format", "file size", "image size", "colour channels", "border"])
def test_planted_shortcuts_are_found(measured, trait):
    """A trait that depends on the class is found, and no other one that is constant is even tried."""
    manifest, traits = measured
    labels = manifest.rows.label.to_numpy()
    n = len(labels)
    planted = {
        "file format": {"image_format": np.array(["PNG", "JPEG", "BMP"])[labels]},
        "file size": {"size_bytes": 1000 * 2**labels + np.arange(n) % 50},
        "image size": {"width": 96 + 32 * labels, "height": np.full(n, 96)},
        "colour channels": {"channels": np.where(labels == 0, 1, 3)},
        "border": {"borders": np.column_stack([labels * 0.05] * 4).astype(np.float32)},
    }
    constant = {
        "image_format": np.full(n, "PNG"), "size_bytes": np.full(n, 9), "width": np.full(n, 9), "height": np.full(n, 9),
        "channels": np.ones(n), "borders": np.zeros((n, 4)),
    }  # fmt: skip
    changed = dataclasses.replace(traits, **{**constant, **planted[trait]})
    found = measure_shortcuts(changed, labels, np.arange(n) // 2)
    assert [each.trait for each in found if each.trait != "8x8 thumbnail"] == [trait]
    assert found[0].is_far_above_chance and found[0].low <= found[0].accuracy <= found[0].high


def test_traits(tmp_path, settings):
    """Format by content, size, channels, frame and flatness are those of the file."""
    pixels = np.random.default_rng(0).integers(60, 200, (40, 80, 3), dtype=np.uint8)
    pixels[:10], pixels[:, 72:] = 0, 255
    pixels[:10, 72:] = 0
    for name, image in {
        "a/1.png": pixels,
        "a/2.png": np.full((30, 30), 77, np.uint8),
        "b/3.png": pixels[:, :, 0],
    }.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "data" / name)
    Image.fromarray(pixels).save(tmp_path / "data/b/4.png", format="JPEG")
    config = settings(tmp_path / "data", tmp_path / "state")
    manifest = load_or_build_manifest(config)
    traits = load_or_measure_traits(manifest, config.dataset_dir, workers=1)
    assert traits.image_format.tolist() == ["PNG", "PNG", "PNG", "JPEG"]
    assert (traits.width[0], traits.height[0]) == (80, 40)
    assert traits.channels.tolist() == [3, 1, 1, 3]
    assert traits.borders[0].tolist() == [0.25, 0.0, 0.0, pytest.approx(0.0)]
    assert traits.is_flat.tolist() == [False, True, False, False]
    assert traits.size_bytes[0] == (tmp_path / "data/a/1.png").stat().st_size


def test_saved_traits_are_used_again(measured, phantom, tmp_path, settings):
    """Traits are loaded while the images stay the same; damaged ones are measured again."""
    manifest, _ = measured
    config = settings(phantom, tmp_path)
    first = load_or_measure_traits(manifest, config.dataset_dir, workers=1)
    path = config.dataset_dir / "traits.npz"
    written = path.stat().st_mtime_ns
    assert (load_or_measure_traits(manifest, config.dataset_dir, workers=1).thumbnails == first.thumbnails).all()
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:1000])
    assert (load_or_measure_traits(manifest, config.dataset_dir, workers=1).borders == first.borders).all()


def test_no_weights_no_network(measured, phantom, tmp_path, settings):
    """Without pretrained weights at hand images are compared by the descriptor, and that is said."""
    manifest, traits = measured
    embeddings = embed_images(manifest, traits.thumbnails, settings(phantom, tmp_path))
    assert "descriptor" in embeddings.made_by
    assert embeddings.points.shape == (len(traits.thumbnails), len(traits.thumbnails) // 4)
