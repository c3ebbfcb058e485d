"""The manifest knows every image, its patient and its doubles, and is made again only when something has changed."""

import os

import numpy as np
import pytest
from PIL import Image

from medvision.data.manifest import check_rejected, load_or_build_manifest
from medvision.data.pseudonyms import load_or_make_key, pseudonym
from medvision.errors import DataInvalid
from medvision.files import sha256_file

PATTERN = r"(person\d+)_"


def manifest_file(state):
    return state / "datasets" / "sample" / "manifest.parquet"


def test_classes_are_in_a_fixed_order(build, sample):
    """Classes are sorted by name, labels index them, and the saved manifest keeps both."""
    made, loaded = build(sample), build(sample)
    for manifest in (made, loaded):
        assert manifest.classes == ("glioma", "meningioma", "pituitary")
        assert [manifest.classes[label] for label in manifest.rows.label] == [
            path.split("/")[0] for path in manifest.rows.path
        ]


def test_saved_manifest_is_the_one_that_was_made(build, write_dataset, tmp_path):
    """A manifest is the same after it was saved and loaded, with what was rejected."""
    root = write_dataset(tmp_path / "d", ["a/person1_1.png", "a/person1_2.png", "b/person2_1.png", "b/none.png"])
    (root / "a" / "bad.png").write_bytes(b"x")
    options = {"dataset": {"patient_pattern": PATTERN}}
    made, loaded = build(root, **options), build(root, **options)
    assert made.rows.equals(loaded.rows) and made is not loaded
    for name in ("root", "classes", "rejected", "unmatched", "left_out", "listing", "fingerprint"):
        assert getattr(made, name) == getattr(loaded, name)
    assert loaded.unmatched == 1 and loaded.rejected[0].path == "a/bad.png"


def test_size_and_channels(build, noise, write_image, tmp_path):
    """Each row tells the size, and one channel also for a colour file that holds a gray image."""
    gray = noise(0, (10, 20))
    write_image(tmp_path / "d" / "a" / "gray.png", gray)
    write_image(tmp_path / "d" / "a" / "gray_as_rgb.png", np.repeat(gray[:, :, None], 3, axis=2))
    write_image(tmp_path / "d" / "b" / "colour.png", noise(1, (10, 20, 3)))
    manifest = build(tmp_path / "d")
    assert manifest.rows.channels.tolist() == [1, 1, 3]
    assert set(zip(manifest.rows.width, manifest.rows.height, strict=True)) == {(20, 10)}
    assert not manifest.is_gray and not manifest.knows_patients


def test_pixel_hash_finds_copies_that_file_hashes_miss(build, noise, write_image, tmp_path):
    """The same pixels in other files (format, compression, metadata, three channels) share hash and group."""
    root, gray = tmp_path / "d", noise(0)
    copies = [
        write_image(root / "a" / "1.png", gray),
        write_image(root / "a" / "2.png", gray, compress_level=0),
        write_image(root / "a" / "3.bmp", gray),
        write_image(root / "b" / "4.tif", np.repeat(gray[:, :, None], 3, axis=2)),
    ]
    write_image(root / "b" / "5.png", noise(1))
    rows = build(root).rows
    assert len({sha256_file(path) for path in copies}) == 4
    assert rows.pixel_hash[:4].nunique() == rows.group[:4].nunique() == 1
    assert rows.group.nunique() == 2


def test_turned_copy_is_found(build, noise, write_image, tmp_path):
    """A copy that is stored upside down, with the EXIF orientation that says so, has the same pixels."""
    exif = Image.Exif()
    exif[0x0112] = 3
    write_image(tmp_path / "d" / "a" / "1.png", noise(0))
    write_image(tmp_path / "d" / "b" / "2.png", np.ascontiguousarray(np.rot90(noise(0), 2)), exif=exif)
    assert build(tmp_path / "d").rows.pixel_hash.nunique() == 1


def test_groups_join_patients_and_pixels(build, noise, write_image, tmp_path):
    """Images of one patient, and of the same pixels, are one group, also through a chain of both."""
    root = tmp_path / "d"
    write_image(root / "a" / "person1_1.png", noise(1))
    write_image(root / "a" / "person1_2.png", noise(2))
    write_image(root / "b" / "person2_1.png", noise(2))
    write_image(root / "b" / "person2_2.png", noise(3))
    write_image(root / "b" / "person3_1.png", noise(4))
    rows = build(root, dataset={"patient_pattern": PATTERN}).rows
    assert rows.group[:4].nunique() == 1 and rows.group.nunique() == 2
    assert rows.patient_key.nunique() == 3


def test_images_of_unknown_patients_are_groups_of_their_own(build, write_dataset, tmp_path):
    """Where the pattern is not found in a name, the image is its own group, and it is counted."""
    root = write_dataset(tmp_path / "d", ["a/person1_1.png", "a/x.png", "b/y.png"])
    manifest = build(root, dataset={"patient_pattern": PATTERN})
    assert manifest.unmatched == 2 and manifest.rows.group.nunique() == 3
    assert (manifest.rows.patient_key == "").tolist() == [False, True, True]


def test_alternatives_of_a_pattern(build, write_dataset, tmp_path):
    """A pattern of alternatives takes the group that matched; several groups together name the patient."""
    root = write_dataset(tmp_path / "d", ["a/s1-p1_1.png", "a/s2-p1_1.png", "b/IM-7_1.png", "b/IM-7_2.png"])
    rows = build(root, dataset={"patient_pattern": r"(s\d)-(p\d)_|(IM-\d)"}).rows
    assert rows.patient_key.nunique() == 3


def test_pattern_that_matches_nothing(build, sample):
    """A pattern that is found in no file name is an error that shows some names."""
    with pytest.raises(DataInvalid, match=r"matches none of the 9 file names, for example 0\.png"):
        build(sample, dataset={"patient_pattern": PATTERN})


def test_no_identifier_in_the_keys(build, write_dataset, tmp_path, state):
    """A patient_key is a keyed hash of the identifier, and holds nothing of it."""
    root = write_dataset(tmp_path / "d", ["a/person17_1.png", "b/person18_1.png"])
    rows = build(root, dataset={"patient_pattern": PATTERN}).rows
    assert rows.patient_key.str.fullmatch("[0-9a-f]{16}").all()
    assert rows.patient_key.tolist() == [pseudonym(load_or_make_key(state), f"person{n}") for n in (17, 18)]


def test_keys_are_stable(settings, sample, tmp_path):
    """Image and patient keys are the same in every run, and others under another project's secret."""
    options = {"dataset": {"patient_pattern": r"(\d)"}}
    first = load_or_build_manifest(settings(sample, tmp_path / "one", **options))
    manifest_file(tmp_path / "one").unlink()
    again = load_or_build_manifest(settings(sample, tmp_path / "one", **options))
    other = load_or_build_manifest(settings(sample, tmp_path / "two", **options))
    for name in ("image_id", "patient_key"):
        assert first.rows[name].tolist() == again.rows[name].tolist()
        assert not set(first.rows[name]) & set(other.rows[name])
    assert first.rows.image_id.is_unique
    assert first.fingerprint == again.fingerprint == other.fingerprint


def test_unchanged_dataset_is_not_read_again(build, sample):
    """Without a change on disk the saved manifest is used: no image is opened."""
    made = build(sample)
    victim = sample / "glioma" / "0.png"
    before = victim.stat()
    victim.write_bytes(b"x" * before.st_size)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert build(sample).rows.equals(made.rows)


def test_change_is_seen(build, sample, noise, write_image):
    """A file that is changed, added or removed, or another pattern, makes a new manifest."""
    prints = [build(sample).fingerprint]
    write_image(sample / "glioma" / "0.png", noise(99))
    prints.append(build(sample).fingerprint)
    write_image(sample / "glioma" / "9.png", noise(98))
    prints.append(build(sample).fingerprint)
    (sample / "glioma" / "1.png").unlink()
    prints.append(build(sample).fingerprint)
    prints.append(build(sample, dataset={"patient_pattern": r"(\d)"}).fingerprint)
    assert len(set(prints)) == 5


def test_damaged_saved_manifest_is_made_again(build, sample, state):
    """Whatever byte of the saved manifest is damaged, the manifest that comes back is right."""
    made, path = build(sample), manifest_file(state)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damages = [b"", b"PAR1", whole[: len(whole) // 2]]
    for place in random.integers(0, len(whole), 60):
        damages.append(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    for damaged in damages:
        path.write_bytes(damaged)
        manifest = build(sample)
        assert manifest.rows.equals(made.rows)
        assert manifest.classes == made.classes and manifest.fingerprint == made.fingerprint


def test_unreadable_images_are_named(build, sample):
    """Unreadable images are kept out and named with path and reason; the exit code is that of invalid data."""
    (sample / "glioma" / "0.png").write_bytes(b"")
    whole = (sample / "pituitary" / "1.png").read_bytes()
    (sample / "pituitary" / "1.png").write_bytes(whole[: len(whole) // 2])
    manifest = build(sample)
    assert len(manifest.rows) == 7
    with pytest.raises(DataInvalid) as refusal:
        check_rejected(manifest, 0.0)
    message = str(refusal.value)
    assert refusal.value.exit_code == 5
    assert f"{sample}/glioma/0.png: not a readable image" in message
    assert f"{sample}/pituitary/1.png: " in message
    assert "2 of 9" in message and "max_rejected_fraction=0.223" in message


@pytest.mark.parametrize("n", [3, 7, 29, 57, 100, 300, 1000])
def test_max_rejected_fraction(manifest_of, n):
    """Exactly the allowed fraction passes, one more does not, and the fraction that the message offers is enough."""
    for bad in range(1, n):
        manifest = manifest_of([0, 1] * n, rejected=[("x.png", "damaged")] * bad)
        manifest = type(manifest)(**{**vars(manifest), "rows": manifest.rows[: n - bad]})
        check_rejected(manifest, bad / n)
        with pytest.raises(DataInvalid) as refusal:
            check_rejected(manifest, (bad - 1) / n)
        check_rejected(manifest, float(str(refusal.value).rpartition("=")[2]))
        if n > 100 and bad > 60:
            break


def test_many_rejected_are_counted(manifest_of):
    """Twenty names are shown, the rest is counted."""
    manifest = manifest_of([0, 1], rejected=[(f"{i}.png", "damaged") for i in range(50)])
    with pytest.raises(DataInvalid, match="and 30 more"):
        check_rejected(manifest, 0.1)


def test_no_readable_image_at_all(build, sample):
    """A dataset of damaged files only is refused."""
    for path in sample.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataInvalid, match="None of the 9 files"):
        build(sample)


def test_processes_give_the_same_manifest(settings, write_dataset, tmp_path):
    """The manifest does not depend on how many processes read the images."""
    root = write_dataset(tmp_path / "d", [f"{name}/{i}.png" for name in "ab" for i in range(40)])
    alone = load_or_build_manifest(settings(root, tmp_path / "s1"))
    together = load_or_build_manifest(settings(root, tmp_path / "s2", performance={"workers": 2}))
    assert alone.fingerprint == together.fingerprint
