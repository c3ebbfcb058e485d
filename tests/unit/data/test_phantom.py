"""What the phantom promises: synthetic and said to be, deterministic, and told apart by the tumour alone."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvision.data import phantom
from medvision.data.phantom import CLASSES, make_phantom
from medvision.errors import ConfigInvalid, DataInvalid

PATIENT = re.compile(r"(phantom\d+)_slice\d+\.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "sample"
    make_phantom(folder, patients_per_class=36, slices_per_patient=3)
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(folder.glob("*/*.png"))


@pytest.fixture(scope="module")
def images(paths):
    return np.stack([np.asarray(Image.open(path)) for path in paths])


@pytest.fixture(scope="module")
def labels(paths):
    return np.array([CLASSES.index(path.parent.name) for path in paths])


@pytest.fixture(scope="module")
def patients(paths):
    return np.array([PATIENT.fullmatch(path.name)[1] for path in paths])


@pytest.fixture
def one_thread():
    """Let torch use one core: two threads wait for each other on a busy machine of two."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _accuracy_by_patient(features, labels, patients):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return cross_val_score(model, features, labels, groups=patients, cv=folds).mean()


def _small(images, side):
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.BOX)) for image in images])


def _content(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_says_synthetic(folder):
    """The folder and every class name say that the images are no patients."""
    assert (folder / "README.txt").read_text().startswith("SYNTHETIC")
    assert all("phantom" in name for name in CLASSES)


def test_layout(folder, paths, patients, labels):
    """Each class has its patients, each patient the asked number of slices, and no patient stands in two classes."""
    assert sorted(path.name for path in folder.iterdir()) == ["README.txt", *CLASSES]
    assert len(paths) == 3 * 36 * 3
    by_patient = {patient: set(labels[patients == patient]) for patient in patients}
    assert len(by_patient) == 3 * 36
    assert all(len(classes) == 1 for classes in by_patient.values())


def test_format_is_the_same_for_every_class(paths):
    """Every file is an 8-bit gray PNG of the asked size without metadata, so that the format tells no class."""
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size, image.info) == ("PNG", "L", (128, 128), {})


def test_same_arguments_give_the_same_bytes(tmp_path):
    """The same arguments give the same bytes, and another seed other pictures."""
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        make_phantom(tmp_path / name, patients_per_class=2, slices_per_patient=2, image_size=64, seed=seed)
    assert _content(tmp_path / "one") == _content(tmp_path / "two")
    assert _content(tmp_path / "one") != _content(tmp_path / "three")


def test_a_patient_is_the_same_in_a_larger_sample(tmp_path):
    """A patient looks the same however many there are."""
    make_phantom(tmp_path / "small", patients_per_class=1, slices_per_patient=2, image_size=64)
    make_phantom(tmp_path / "large", patients_per_class=2, slices_per_patient=2, image_size=64)
    small, large = _content(tmp_path / "small"), _content(tmp_path / "large")
    assert all(large[name] == small[name] for name in small if name.suffix == ".png")


def test_made_folder_is_left_as_it_is(tmp_path):
    """A second call with the same arguments writes nothing."""
    make_phantom(tmp_path / "sample", patients_per_class=1, slices_per_patient=1, image_size=64)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sample").rglob("*")}
    make_phantom(tmp_path / "sample", patients_per_class=1, slices_per_patient=1, image_size=64)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sample").rglob("*")} == before


def test_foreign_folder_is_refused(tmp_path):
    """A folder that holds something else is refused and keeps what it holds."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataInvalid, match="holds something else"):
        make_phantom(tmp_path, patients_per_class=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_interrupted_sample_leaves_nothing(tmp_path, monkeypatch):
    """A sample that is interrupted half-way leaves no folder behind."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_scan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_phantom(tmp_path / "sample", patients_per_class=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", [{"patients_per_class": 0}, {"slices_per_patient": 0}, {"image_size": 8}])
def test_meaningless_settings_are_refused(tmp_path, setting):
    """A sample of nothing, or too small to show anything, is a ConfigInvalid."""
    with pytest.raises(ConfigInvalid):
        make_phantom(tmp_path / "sample", **setting)


def test_slices_of_a_patient_resemble_each_other(images, patients):
    """Slices of one patient are closer to each other than to any other patient's, as in a real series."""
    flat = _small(images, 32).reshape(len(images), -1).astype(float)
    correlation = np.corrcoef(flat)
    np.fill_diagonal(correlation, -1)
    nearest = patients[correlation.argmax(axis=1)]
    assert (nearest == patients).mean() > 0.95


def test_intensity_does_not_tell_the_class(images, labels, patients):
    """Mean and deviation of an image tell its class little better than chance (1/3; measured: 0.46)."""
    features = np.stack([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)
    assert _accuracy_by_patient(features, labels, patients) < 0.5


def test_thumbnails_do_not_tell_the_class(images, labels, patients):
    """A linear model of 8x8 thumbnails (measured: 0.69) stays far below a small network (0.9 and more)."""
    assert _accuracy_by_patient(_small(images, 8).reshape(len(images), -1), labels, patients) < 0.78


def test_small_network_learns_the_class(images, labels, patients, one_thread):
    """A four-layer network at 64 pixels learns the classes of patients it has not seen, in seconds on a CPU."""
    import torch
    from torch import nn

    numbers = np.array([int(patient.removeprefix("phantom")) for patient in patients])
    train = numbers <= 84
    pixels = torch.tensor(_small(images, 64)[:, None] / 255.0, dtype=torch.float32)
    pixels, targets = (pixels - pixels[train].mean()) / pixels[train].std(), torch.tensor(labels)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = []
    for channels, wider in ((1, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, 3))
    rows = torch.tensor(np.flatnonzero(train))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=12 * 16)
    for _ in range(12):
        for batch in rows[torch.randperm(len(rows), generator=generator)].chunk(16):
            view = pixels[batch].flip(-1) if torch.rand((), generator=generator) < 0.5 else pixels[batch]
            shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(view.roll(shift, (-2, -1))), targets[batch]).backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        y_pred = network.eval()(pixels[~train]).argmax(dim=1).numpy()
    assert (y_pred == labels[~train]).mean() > 0.85
