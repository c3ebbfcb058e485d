"""A MedMNIST file becomes the images that are in it, with their labels and splits; nothing else is guessed."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from medvision.data.archives import unpack
from medvision.errors import DataInvalid


def arrays(shape=(28, 28), n=(6, 2, 2), classes=2):
    """Return the arrays of a file."""
    random = np.random.default_rng(0)
    made = {}
    for split, size in zip(("train", "val", "test"), n, strict=True):
        made[f"{split}_images"] = random.integers(0, 256, (size, *shape), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(size) % classes).astype(np.uint8)[:, None]
    return made


def npz(path, save=np.savez_compressed, **content):
    save(path, **content)
    return path


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (64, 64), (224, 224, 3), (28, 28, 1)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_and_labels(tmp_path, build, shape, save):
    """Each image comes out pixel by pixel, gray or colour, with its label and split."""
    content = arrays(shape)
    folder = unpack(npz(tmp_path / "pneumoniamnist.npz", save, **content), tmp_path / "into")
    for split in ("train", "val", "test"):
        for i, pixels in enumerate(content[f"{split}_images"]):
            with Image.open(folder / "images" / f"{split}_{i:06d}.png") as image:
                assert (np.asarray(image) == pixels.squeeze()).all()
    rows = build(folder).rows
    assert rows.given_split.value_counts().to_dict() == {"train": 6, "val": 2, "test": 2}
    truth = np.concatenate([content[f"{split}_labels"][:, 0] for split in ("test", "train", "val")])
    assert rows.label.tolist() == truth.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((6, 28, 28, 28), np.uint8)}, "volumes"),
        ({"train_images": np.zeros((6, 28, 28, 28, 3), np.uint8)}, "volumes"),
        ({"train_labels": np.zeros((6, 14), np.uint8)}, "14 labels an image.*one class an image"),
        ({"train_images": np.zeros((6, 28, 28), np.float32)}, "expected uint8"),
        ({"train_labels": np.zeros((6, 1))}, "expected integers"),
        ({"train_images": np.zeros((5, 28, 28), np.uint8)}, "5 images, but train_labels 6 labels"),
        ({"train_images": np.zeros((6, 4, 4), np.uint8)}, "sides of 16 to 1024"),
        ({"train_images": np.zeros((6, 28), np.uint8)}, "expected .n, height, width"),
        ({"train_images": np.asfortranarray(np.zeros((6, 28, 28), np.uint8))}, "columns before rows"),
        ({"train_images": np.array([None] * 6)}, "Python objects"),
        ({"train_labels": np.array([{"x": 1}] * 6)}, "Python objects"),
    ],
)
def test_refused_arrays(tmp_path, change, message):
    """What is no image of one class is refused with the reason, and leaves nothing; no pickle is loaded."""
    with pytest.raises(DataInvalid, match=message):
        unpack(npz(tmp_path / "d.npz", **{**arrays(), **change}), tmp_path / "into")
    assert not (tmp_path / "into" / "d").exists()


def test_missing_arrays(tmp_path):
    """A file without labels, or with other arrays, is refused."""
    content = arrays()
    del content["val_labels"]
    with pytest.raises(DataInvalid, match="has no val_labels"):
        unpack(npz(tmp_path / "d.npz", **content), tmp_path / "into")
    with pytest.raises(DataInvalid, match="Expected train_images"):
        unpack(npz(tmp_path / "e.npz", x=np.zeros(3)), tmp_path / "into")


def test_damaged_array(tmp_path):
    """An array that ends too early, or has no header, is refused."""
    npz(tmp_path / "whole.npz", np.savez, **arrays())
    for number, cut in enumerate((0, 5, 100, 500)):
        with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / f"{number}.npz", "w") as file:
            for name in whole.namelist():
                file.writestr(name, whole.read(name)[: cut if name == "train_images.npy" else None])
        with pytest.raises(DataInvalid, match="damaged"):
            unpack(tmp_path / f"{number}.npz", tmp_path / "into")


@pytest.mark.parametrize(
    "header", [b"(" * 100, b"(" * 60000, b"{'descr': '|u1', 'shape'", b"'" * 3, b"-" * 60000, b"\xff"], ids=len
)
def test_damaged_header(tmp_path, header):
    """A header that is no description of an array is refused, whatever Python makes of it."""
    npz(tmp_path / "whole.npz", np.savez, **arrays())
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        for name in whole.namelist():
            file.writestr(name, start + header if name == "train_images.npy" else whole.read(name))
    with pytest.raises(DataInvalid, match="not a NumPy array, or damaged"):
        unpack(tmp_path / "d.npz", tmp_path / "into")


_CHILD = """
import resource, sys
from pathlib import Path
from medvision.data.archives import unpack
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_flat_memory(tmp_path):
    """120 MB of images are unpacked one by one, without ever being in memory together."""
    content = arrays((224, 224, 3), n=(800, 2, 2))
    content["train_images"][:] = np.arange(800, dtype=np.uint8)[:, None, None, None]
    archive = npz(tmp_path / "d.npz", np.savez, **content)
    out = subprocess.run(
        [sys.executable, "-c", _CHILD, archive, tmp_path / "into"], capture_output=True, text=True, check=True
    )
    assert int(out.stdout) < 30
