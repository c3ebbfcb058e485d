"""The deep audit as a whole: what it finds is kept, used again, and acted on by the split."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from medvision.auditing.deep import load_deep, load_or_examine
from medvision.auditing.traits import load_or_measure_traits
from medvision.data.audit import add_deep, audit, render_text
from medvision.data.duplicates import PAIRS_FILE, add_pairs, join_pairs, load_pairs, save_pairs
from medvision.data.manifest import load_or_build_manifest
from medvision.data.phantom import make_phantom
from medvision.data.split import find_leaks, make_split


@pytest.fixture(scope="module")
def leaky(tmp_path_factory, settings):
    """A pre-split dataset with mirrored and compressed copies of training images in test, one under another class."""
    root = tmp_path_factory.mktemp("leaky")
    make_phantom(root / "made", patients_per_class=24, slices_per_patient=1, image_size=96)
    for number, path in enumerate(sorted((root / "made").glob("*/*.png"))):
        side = ("train", "train", "train", "val", "test", "test")[number % 6]
        target = root / "data" / side / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    sources = sorted((root / "data/train").glob("*/*.png"))[:6]
    for number, path in enumerate(sources):
        image = Image.open(path)
        copy = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else image
        name = "phantom_pituitary" if number == 0 else path.parent.name
        copy.save(root / "data/test" / name / f"copy{number}.jpg", quality=80)
    Image.new("L", (96, 96), 10).save(root / "data/train/phantom_glioma/empty.png")
    config = settings(root / "data", root / "state")
    manifest = load_or_build_manifest(config)
    return manifest, config, load_or_examine(manifest, config)


def found(record):
    return {finding.name: finding.count for finding in record.findings}


def test_what_is_planted_is_found(leaky):
    """Copies, those under two classes, and empty images are counted; and every finding says what to do."""
    _, _, deep = leaky
    assert found(deep)["near_duplicates"] == 12
    assert found(deep)["conflicting_copies"] == 2
    assert found(deep)["flat"] == 1
    assert all(finding.effect and finding.action and finding.count <= finding.total for finding in deep.findings)


def test_examples_are_pseudonyms(leaky):
    """What is saved names images by their ids, never by their files."""
    manifest, config, deep = leaky
    ids = set(manifest.rows.image_id)
    assert all(example in ids for finding in deep.findings for example in finding.examples)
    saved = (config.dataset_dir / "deep_audit.json").read_text() + (config.dataset_dir / PAIRS_FILE).read_bytes().hex()
    assert "phantom0" not in saved and b"phantom0".hex() not in saved


def test_copies_leave_the_training_side(leaky):
    """Once copies are known, the leak is counted, and their originals in train are left out of the split."""
    manifest, config, _ = leaky
    joined = join_pairs(manifest, load_pairs(manifest, config.dataset_dir))
    leaks = {(leak.side, leak.other, leak.by): len(leak.rows) for leak in find_leaks(joined) if len(leak.rows)}
    assert leaks == {("test", "train", "picture"): 6}
    before, split = make_split(manifest, config.dataset), make_split(joined, config.dataset)
    assert split.fingerprint != before.fingerprint
    assert ((before.sides == "train") & (split.sides == "dropped")).sum() == 6
    assert (split.sides[manifest.rows.given_split == "test"] == "test").all()


def test_the_audit_tells_of_copies(leaky):
    """The leak of copies is a finding, what was left out is said, and names can be put in place of ids."""
    manifest, config, deep = leaky
    joined = join_pairs(manifest, load_pairs(manifest, config.dataset_dir))
    record = add_deep(audit("leaky", joined, make_split(joined, config.dataset)), deep)
    assert found(record)["test_in_train_by_picture"] == 6
    text = render_text(record, dict(zip(manifest.rows.image_id, manifest.rows.path, strict=True)))
    assert "are altered copies of a train image" in text and "6 leaking train and val rows are left out." in text
    assert "train/phantom_glioma/empty.png" in text
    assert "empty.png" not in render_text(record)


def test_it_is_used_again(leaky):
    """While images and settings stay the same the saved audit is returned; with other settings it is made anew."""
    manifest, config, deep = leaky
    path = config.dataset_dir / "deep_audit.json"
    written = path.stat().st_mtime_ns
    assert load_or_examine(manifest, config) == deep and path.stat().st_mtime_ns == written
    other = config.model_copy(update={"training": config.training.model_copy(update={"model": "resnet50"})})
    assert load_or_examine(manifest, other).settings != deep.settings
    assert load_or_examine(manifest, config).settings == deep.settings


def test_an_examination_with_other_weights_is_another(leaky, tmp_path, settings):
    """Weights that come to hand, or a file of them that is replaced, make another examination."""
    manifest, config, _ = leaky
    weights = tmp_path / "resnet18.pth"
    of_file = settings(manifest.root, config.paths.state, training={"pretrained": weights})
    made = [load_or_examine(manifest, of_file).settings]
    for content in (b"one", b"another"):
        weights.write_bytes(content)
        made.append(load_or_examine(manifest, of_file).settings)
    assert len(set(made)) == 3
    assert load_or_examine(manifest, of_file).settings == made[-1]


def test_an_examination_takes_nothing_back(leaky, tmp_path, settings, pair_table):
    """Pairs that an examination with another model found stay, whatever a later one finds; new ones are told apart."""
    manifest, config, _ = leaky
    found = load_pairs(manifest, config.dataset_dir)
    elsewhere = settings(manifest.root, tmp_path)
    save_pairs(add_pairs(None, pair_table((0, 20))), manifest, elsewhere.dataset_dir)
    load_or_examine(manifest, elsewhere)
    pairs = load_pairs(manifest, elsewhere.dataset_dir)
    numbers = dict(zip(zip(pairs.i, pairs.j, strict=True), pairs.examination, strict=True))
    assert numbers == {(0, 20): 1, **dict.fromkeys(zip(found.i, found.j, strict=True), 2)}
    other = settings(manifest.root, tmp_path, training={"model": "resnet50"})
    load_or_examine(manifest, other)
    assert load_pairs(manifest, elsewhere.dataset_dir).equals(pairs)


def test_the_same_pixels_in_another_file(tmp_path, settings):
    """An image that is written anew, with the same pixels and another size, is looked at again."""
    make_phantom(tmp_path / "data", patients_per_class=4, slices_per_patient=1, image_size=96)
    config = settings(tmp_path / "data", tmp_path / "state")
    manifest = load_or_build_manifest(config)
    deep, traits = load_or_examine(manifest, config), load_or_measure_traits(manifest, config.dataset_dir)
    path = manifest.sources()[0].file
    Image.open(path).save(path, compress_level=0)
    again = load_or_build_manifest(config)
    assert again.fingerprint == manifest.fingerprint
    assert load_or_examine(again, config).settings != deep.settings
    assert load_or_measure_traits(again, config.dataset_dir).size_bytes[0] > traits.size_bytes[0]


def test_of_other_images_it_does_not_count(leaky):
    """A saved audit, and saved pairs, of other images are not used."""
    manifest, config, _ = leaky
    changed = dataclasses.replace(manifest, fingerprint="0" * 64)
    assert load_deep(config.dataset_dir, changed) is None
    assert load_pairs(changed, config.dataset_dir) is None


def test_a_damaged_table_of_pairs_does_not_count(leaky, tmp_path, pair_table):
    """A table of pairs that can't be read is as good as none."""
    manifest, _, _ = leaky
    save_pairs(add_pairs(None, pair_table((0, 1))), manifest, tmp_path)
    assert len(load_pairs(manifest, tmp_path)) == 1
    (tmp_path / PAIRS_FILE).write_bytes(b"PAR1 nothing")
    assert load_pairs(manifest, tmp_path) is None


def test_chains_of_copies_are_one_group(leaky, pair_table):
    """Images that pairs join through others share picture and group; without pairs nothing changes."""
    manifest, _, _ = leaky
    joined = join_pairs(manifest, pair_table((0, 1), (1, 5)))
    assert joined.rows.group[[0, 1, 5]].nunique() == 1 and joined.rows.picture[[0, 1, 5]].nunique() == 1
    assert joined.rows.picture.nunique() == len(manifest.rows) - 2
    alone = join_pairs(manifest, pair_table())
    assert np.unique(alone.rows.group).size == np.unique(manifest.rows.group).size
