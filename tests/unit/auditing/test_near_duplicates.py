"""Altered copies are found, and images that only resemble each other are not."""

import numpy as np
import pytest
from PIL import Image

from medvision.auditing.hashes import ORIENTATIONS, hash_thumbnails, near_pairs, orient
from medvision.auditing.near_duplicates import find_near_duplicates
from medvision.auditing.registration import align
from medvision.auditing.spectra import find_alike, find_neighbours
from medvision.auditing.traits import load_or_measure_traits

N_COPIED = 40


def find(thumbnails):
    return find_near_duplicates(thumbnails, np.ones(len(thumbnails), dtype=bool))


def test_altered_copies_are_found(images, thumbnails, thumbnail, alter):
    """Of copies that were altered in a usual way at least nine in ten are found, and nothing else is."""
    originals = range(0, 2 * N_COPIED, 2)
    copies = np.stack([thumbnail(alter(images[row])) for row in originals])
    pairs = find(np.concatenate([thumbnails, copies]))
    true = {(row, len(thumbnails) + k) for k, row in enumerate(originals)}
    found = set(zip(pairs.i, pairs.j, strict=True))
    assert len(found & true) >= 0.9 * N_COPIED
    assert found <= true


def test_phantoms_are_no_copies(thumbnails):
    """Slices of one patient, and heads of different patients, are no copies of each other."""
    assert len(find(thumbnails)) == 0


def test_kinds(thumbnails):
    """A copy in the same pose is told from a mirrored one."""
    noisy = np.clip(thumbnails[0].astype(int) + np.random.default_rng(0).integers(-4, 5, (64, 64)), 0, 255)
    pairs = find(np.concatenate([thumbnails, noisy[None].astype(np.uint8), thumbnails[7:8, :, ::-1]]))
    n = len(thumbnails)
    assert {(p.i, p.j, p.kind) for p in pairs.itertuples()} == {(0, n, "copy"), (7, n + 1, "mirrored")}


def test_only_candidates_are_compared(thumbnails):
    """Images that are no candidates are in no pair, and row numbers are those of all images."""
    doubled = np.concatenate([thumbnails, thumbnails])
    is_candidate = np.zeros(len(doubled), dtype=bool)
    is_candidate[[3, 9, 9 + len(thumbnails)]] = True
    pairs = find_near_duplicates(doubled, is_candidate)
    assert list(zip(pairs.i, pairs.j, strict=True)) == [(9, 9 + len(thumbnails))]


@pytest.mark.parametrize("number", range(8))
def test_hashes_of_orientations(thumbnails, number):
    """The hash of an orientation is that of the image flipped or turned so."""
    turned = np.ascontiguousarray(orient(thumbnails, ORIENTATIONS[number]))
    differing = np.bitwise_count(hash_thumbnails(thumbnails)[number] ^ hash_thumbnails(turned)[0])
    assert differing.max() <= 2


def test_search_finds_every_near_pair():
    """The search in blocks finds what comparing each with each finds."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, (8, 300), dtype=np.uint64) & np.uint64(0xFFFF)
    found = {(i, j, o) for a, b, o in near_pairs(hashes, 3) for i, j in zip(a.tolist(), b.tolist(), strict=True)}
    expected = {
        (i, j, o)
        for o in range(8)
        for i in range(300)
        for j in range(i + 1, 300)
        if bin(int(hashes[o, i]) ^ int(hashes[0, j])).count("1") <= 3
    }
    assert found == expected


@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_are_alike(thumbnails, mirrored):
    """A crop anywhere in an image has a spectrum like its own, also when it is mirrored: 19 in 20 are candidates."""
    random, n = np.random.default_rng(0), len(thumbnails)
    crops = []
    for image in thumbnails:
        left, top = random.integers(0, 11, 2)
        crop = Image.fromarray(image[:, ::-1] if mirrored else image).crop((left, top, left + 54, top + 54))
        crops.append(np.asarray(crop.resize((64, 64), Image.Resampling.BILINEAR)))
    pairs = find_alike(np.concatenate([thumbnails, crops]), np.arange(2 * n)).tolist()
    assert sum([k, n + k] in pairs for k in range(n)) >= 0.95 * n


def test_few_images_have_few_neighbours(thumbnails):
    """One or two images, or points, are compared with none; positions are those among the chosen rows."""
    assert len(find_alike(thumbnails, np.array([3, 5]))) == 0 and len(find_neighbours(np.eye(2))) == 0
    assert find_alike(thumbnails, np.array([3, 5, 90])).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_neighbours_of_a_network_are_compared(thumbnails, thumbnail, images):
    """A copy that spectra do not know is found where embeddings are neighbours."""
    n, crop = len(thumbnails), images[2].crop((0, 24, 96, 96))
    both = np.concatenate([thumbnails, thumbnail(crop)[None]])
    points = np.random.default_rng(0).normal(size=(n + 1, 32)).astype(np.float32)
    points[n] = points[2]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    candidates = np.ones(n + 1, dtype=bool)
    assert len(find_near_duplicates(both, candidates)) == 0
    pairs = find_near_duplicates(both, candidates, points)
    assert list(zip(pairs.i, pairs.j, strict=True)) == [(2, n)]


def test_alignment_undoes_a_shift(thumbnails):
    """A shifted image is laid over the original to within a few gray levels, where both are known."""
    moved = np.roll(thumbnails[:8], (5, -4), axis=(1, 2))
    warped, known = align(thumbnails[:8], moved)
    assert known.mean() > 0.7
    assert np.abs(warped[known].astype(int) - thumbnails[:8][known]).mean() < 4


@pytest.mark.slow
def test_xrays_of_two_patients_are_no_copies(real_manifest):
    """Of 5,824 different chest X-rays, those called copies are of one patient, save for one in a thousand at most."""
    manifest, config = real_manifest("chest-xray", patient_pattern=r"(person\d+)_|(NORMAL2-IM-\d+)|(IM-\d+)")
    traits = load_or_measure_traits(manifest, config.dataset_dir, workers=1)
    is_first = ~manifest.rows.pixel_hash.duplicated().to_numpy()
    pairs = find_near_duplicates(traits.thumbnails, is_first)
    patients = manifest.rows.patient_key.to_numpy()
    assert (patients[pairs.i] != patients[pairs.j]).sum() <= 5


def test_covid_copies_across_the_split(real_manifest):
    """In covid317 copies of another contrast are found beside the identical ones, none of them across classes."""
    manifest, config = real_manifest("covid317")
    traits = load_or_measure_traits(manifest, config.dataset_dir, workers=1)
    pairs = find_near_duplicates(traits.thumbnails, ~manifest.rows.pixel_hash.duplicated().to_numpy())
    rows = manifest.rows
    assert 2 <= len(pairs) <= 6
    assert (rows.label.to_numpy()[pairs.i] == rows.label.to_numpy()[pairs.j]).all()
    assert (rows.given_split.to_numpy()[pairs.i] != rows.given_split.to_numpy()[pairs.j]).any()
