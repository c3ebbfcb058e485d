import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from medvision.errors import CheckpointCorrupt, DataInvalid, DiskFull
from medvision.files import sha256_file
from medvision.models import package
from medvision.models.package import copy_package, describe, load_package, package_digest, save_package
from medvision.records import PackageInfo, load_record, record_fingerprint

FIELDS = {
    "name": "phantom-simple_cnn",
    "dataset": "phantom",
    "classes": ("glioma", "meningioma", "pituitary"),
    "manifest_fingerprint": "a" * 64,
    "split_fingerprint": "b" * 64,
    "run_key": "run-1",
    "best_epoch": 3,
    "best_val_accuracy": 0.9,
}


def save(folder, network, **changed):
    """Save a network with FIELDS, some of them changed."""
    return save_package(folder, describe(network, **{**FIELDS, **changed}), [network])


@pytest.fixture
def folder(build, tmp_path):
    """A package as it was saved."""
    save(tmp_path / "package", build())
    return tmp_path / "package"


@pytest.mark.parametrize("name", ["own", "resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_package_gives_the_same_logits(name, channels, build, images, tmp_path):
    """What is loaded answers bit for bit as what was saved."""
    network, batch = build(name, channels=channels, head="medical").eval(), images(channels=channels)
    info = save(tmp_path / "package", network)
    loaded_info, loaded = load_package(tmp_path / "package")
    assert loaded_info == info
    assert not loaded[0].training
    assert torch.equal(loaded[0](batch), network(batch))


def test_a_package_holds_two_files_and_no_pickle(folder):
    """The folder holds the weights and what is said of them, and nothing is left beside it."""
    assert sorted(path.name for path in folder.iterdir()) == ["package.json", "weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["package"]


def test_a_package_says_all_that_a_prediction_needs(folder):
    """Architecture, classes, preprocessing and lineage come back as they were."""
    info = load_record(PackageInfo, folder / "package.json")
    (member,) = info.members
    assert {key: getattr(info if hasattr(info, key) else member, key) for key in FIELDS} == FIELDS
    assert member.architecture["timm_name"] == "own"
    assert (member.preprocessing.image_size, member.preprocessing.mean) == (32, (0.4, 0.4, 0.4))
    assert info.weights_sha256 == sha256_file(folder / "weights.safetensors")


def test_a_network_in_channels_last_is_saved(build, images, tmp_path):
    """The memory layout of a training does not reach its package."""
    network = build("resnet18").eval().to(memory_format=torch.channels_last)
    save(tmp_path / "package", network)
    batch = images()
    torch.testing.assert_close(load_package(tmp_path / "package")[1][0](batch), network(batch), rtol=1e-4, atol=1e-4)


def test_equal_weights_have_equal_hashes(build, tmp_path):
    """The hash of the weights says nothing of the run that made them."""
    network = build()
    first = save(tmp_path / "first", network)
    second = save(tmp_path / "second", network, run_key="run-2")
    assert first.weights_sha256 == second.weights_sha256
    assert package_digest(tmp_path / "first") != package_digest(tmp_path / "second")


def test_the_digest_is_that_of_what_the_package_says(folder):
    """The digest covers every field of package.json, the hash of the weights among them."""
    info, _ = load_package(folder)
    assert package_digest(folder) == record_fingerprint(info)
    assert record_fingerprint(dataclasses.replace(info, weights_sha256="0" * 64)) != package_digest(folder)


def test_loading_draws_no_random_numbers(folder):
    """A package that is loaded in the middle of a training does not change how it goes on."""
    before = torch.get_rng_state()
    load_package(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_flipped_byte_of_package_json_is_refused(folder):
    """No byte of package.json can change without the package being refused."""
    path = folder / "package.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointCorrupt):
            package_digest(folder)


@pytest.mark.parametrize("place", [0, 20, 5000, -1])
def test_a_flipped_byte_of_the_weights_is_refused(place, folder):
    """One flipped bit anywhere in the weights is found, with both hashes in the message."""
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[place] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(CheckpointCorrupt, match=r"SHA-256 .*, found .*Copy it again"):
        load_package(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "package.json"])
def test_a_truncated_file_of_a_package_is_refused(name, folder):
    """Half a file is refused."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointCorrupt):
        load_package(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "package.json"])
def test_a_missing_file_of_a_package_is_refused(name, folder):
    """A package that lost a file is refused, and the message says what is there."""
    (folder / name).unlink()
    with pytest.raises(CheckpointCorrupt, match=r"expected package\.json and weights\.safetensors, found"):
        load_package(folder)


def test_an_extra_file_is_refused(folder):
    """A file that nobody vouches for is refused by name."""
    (folder / "model.pkl").touch()
    with pytest.raises(CheckpointCorrupt, match=r"model\.pkl"):
        load_package(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "package.json"])
def test_a_link_is_refused(name, folder):
    """A link, which may point to other bytes tomorrow, is refused even if the bytes are right today."""
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(CheckpointCorrupt, match="found a link"):
        load_package(folder)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
def test_no_package_is_refused(make, tmp_path):
    """A path without a package gives the same error as a damaged one."""
    make(tmp_path / "package")
    with pytest.raises(CheckpointCorrupt):
        load_package(tmp_path / "package")
    with pytest.raises(CheckpointCorrupt):
        package_digest(tmp_path / "package")


def test_a_class_without_a_logit_is_refused(build, tmp_path):
    """A package whose classes do not fit its network is never written."""
    with pytest.raises(DataInvalid, match="Expected 3 classes"):
        save(tmp_path / "package", build(), classes=("a", "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_new_package_replaces_the_old(build, folder):
    """The last save is what is loaded, and nothing of the first is left."""
    save(folder, build(), run_key="run-2")
    assert load_package(folder)[0].run_key == "run-2"
    assert [path.name for path in folder.parent.iterdir()] == ["package"]


def test_a_full_disk_leaves_the_old_package(build, folder, monkeypatch):
    """A disk that is full half way costs nothing of what was there, and no half package fills it further."""

    def full(path, value):
        raise DiskFull("no space")

    monkeypatch.setattr(package, "write_json", full)
    with pytest.raises(DiskFull):
        save(folder, build(), run_key="run-2")
    assert load_package(folder)[0].run_key == "run-1"
    assert [path.name for path in folder.parent.iterdir()] == ["package"]


def test_a_copy_is_the_same_package(folder, tmp_path):
    """A copy has the bytes, and so the digest, of what it was made from."""
    copy_package(folder, tmp_path / "copy")
    assert package_digest(tmp_path / "copy") == package_digest(folder)
    assert sha256_file(tmp_path / "copy" / "weights.safetensors") == sha256_file(folder / "weights.safetensors")


# Kills a forked save at its first step on the disk, at its second, and so on, until one is left to end.
KILLED_SAVES = """
import os, shutil, signal, sys
from pathlib import Path
from medvision.models.catalog import Architecture
from medvision.models.network import build_network
from medvision.models.package import copy_package, describe, load_package, save_package

original, folder = Path(sys.argv[1]), Path(sys.argv[2]) / "package"
fields = {fields!r}
architecture = Architecture("model-under-test", "own", "linear", 3, 3, 32)
network = build_network(architecture, mean=(0.4,) * 3, std=(0.2,) * 3, pretrained=False)
STEPS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree", "tempfile.mkstemp")

def save_until(last_step):
    steps = 0
    def count(event, arguments):
        nonlocal steps
        if event in STEPS and str(folder.parent) in str(arguments):
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    sys.addaudithook(count)
    save_package(folder, describe(network, **dict(fields, run_key="run-2")), [network])
    os._exit(0)

for step in range(1, 1000):
    shutil.rmtree(folder.parent)
    shutil.copytree(original, folder)
    killed = save_until(step)
    print(load_package(folder)[0].run_key)
    if not killed:
        break
    save_package(folder, describe(network, **dict(fields, run_key="run-3")), [network])
    assert load_package(folder)[0].run_key == "run-3"
    assert os.listdir(folder.parent) == ["package"], os.listdir(folder.parent)
"""


def test_a_kill_at_any_step_leaves_a_whole_package(folder, tmp_path):
    """A save that is killed leaves the old package or the new one, whole, and the next save tidies up."""
    (tmp_path / "saves").mkdir()
    answer = subprocess.run(
        [sys.executable, "-c", KILLED_SAVES.format(fields=FIELDS), str(folder), str(tmp_path / "saves")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    survivors = answer.stdout.split()
    n_old = survivors.count("run-1")
    assert n_old >= 5
    assert survivors == ["run-1"] * n_old + ["run-2"] * (len(survivors) - n_old)
    assert len(survivors) > n_old + 1
