"""Synthetic brain MR slices with tumours of three classes: a sample to try everything on, never to learn medicine from.

Each phantom is a head in coronal section as contrast-enhanced T1 shows it: scalp, skull, folded cortex, white matter,
ventricles, temporal lobes and sella. The classes differ by where and how the tumour grows, and by nothing else:

- ``phantom_glioma``: within the brain, irregular, ring-like and heterogeneous, with oedema around it;
- ``phantom_meningioma``: from the dura, round, homogeneous, pushing the brain away;
- ``phantom_pituitary``: small, in the midline, at the sella and above it.

Head, scanner, contrast, bias field and noise are drawn alike for every class, from the patient's own generator.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator

from medvision.errors import ConfigInvalid, DataInvalid

CLASSES = ("phantom_glioma", "phantom_meningioma", "phantom_pituitary")

# Brightness of tissues in contrast-enhanced T1, as a fraction of fat's.
FLUID, BONE, AIR, MUSCLE, GRAY, WHITE, FAT = 0.10, 0.07, 0.02, 0.34, 0.43, 0.62, 0.88

Field = np.ndarray


@dataclass(frozen=True)
class _Grid:
    """Coordinates of the pixels in the head's frame: x to the patient's left, y down, the head within [-1, 1]."""

    x: Field
    y: Field

    def ellipse(self, x: float, y: float, a: float | Field, b: float, turn: float = 0.0) -> Field:
        """Return the distance to an ellipse, negative inside, near enough at its border."""
        dx, dy = self.x - x, self.y - y
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / a
        v = (dy * np.cos(turn) - dx * np.sin(turn)) / b
        return (np.hypot(u, v) - 1) * np.minimum(a, b)


@dataclass(frozen=True)
class _Tumour:
    """What grows, where, how large, and how it takes up contrast."""

    kind: str
    x: float
    y: float
    radius: float
    uptake: float
    necrosis: float
    oedema: float


def make_phantom(
    folder: Path, *, patients_per_class: int = 40, slices_per_patient: int = 4, image_size: int = 128, seed: int = 42
) -> None:
    """Write class folders of 8-bit gray PNG files ``phantomNNN_sliceK.png``, and a README.txt that says SYNTHETIC.

    The same arguments give the same bytes. The folder appears whole or not at all; one that the same arguments made
    is left as it is. The patient is the group of ``(phantom\\d+)``; patient numbers are unique over the classes.

    Raises
    ------
    ConfigInvalid: a count below 1, or images smaller than 32 pixels.
    DataInvalid: the folder already holds something else.
    """
    if min(patients_per_class, slices_per_patient) < 1 or image_size < 32:
        raise ConfigInvalid(
            "A phantom needs patients_per_class >= 1, slices_per_patient >= 1 and image_size >= 32; "
            f"found {patients_per_class}, {slices_per_patient} and {image_size}."
        )
    notice = _notice(patients_per_class, slices_per_patient, image_size, seed)
    if _is_made(folder, notice):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        unfinished = Path(temporary) / folder.name
        _write(unfinished, notice, patients_per_class, slices_per_patient, image_size, seed)
        os.replace(unfinished, folder)


def _is_made(folder: Path, notice: str) -> bool:
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    readme = folder / "README.txt"
    if readme.is_file() and readme.read_text(encoding="utf-8") == notice:
        return True
    raise DataInvalid(
        f"{folder} was expected to be absent, empty or this very phantom, and holds something else. "
        "Name another folder, or delete this one."
    )


def _write(folder: Path, notice: str, patients_per_class: int, slices: int, size: int, seed: int) -> None:
    from PIL import Image

    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in range(patients_per_class * len(CLASSES)):
        name = CLASSES[number % len(CLASSES)]
        images = _patient_slices(np.random.default_rng([seed, number]), name, slices, size)
        for k, image in enumerate(images, start=1):
            Image.fromarray(image).save(folder / name / f"phantom{number + 1:03d}_slice{k}.png")
    (folder / "README.txt").write_text(notice, encoding="utf-8")


def _notice(patients_per_class: int, slices_per_patient: int, image_size: int, seed: int) -> str:
    return (
        "SYNTHETIC IMAGES. No patient, no scanner, no diagnosis.\n\n"
        "These brain MR slices were computed by medvision.data.phantom to try the software on. A model trained on\n"
        "them knows nothing of medicine, and no figure measured on them says anything about patients.\n\n"
        f"patients_per_class={patients_per_class} slices_per_patient={slices_per_patient} "
        f"image_size={image_size} seed={seed}\n"
    )


def _patient_slices(rng: Generator, name: str, slices: int, size: int) -> Iterator[np.ndarray]:
    """Yield the slices of one patient: one head, one tumour, one scanner, cut at several depths."""
    head = {
        "turn": rng.normal(0, 0.09), "width": rng.uniform(0.90, 1.04), "height": rng.uniform(0.92, 1.04),
        "dx": rng.normal(0, 0.035), "dy": rng.normal(0, 0.035), "ventricle": rng.uniform(0.7, 1.45),
        "folds": rng.uniform(0.8, 1.2), "scalp": rng.uniform(0.035, 0.075), "gray": rng.normal(0, 0.025),
    }  # fmt: skip
    tumour = _draw_tumour(rng, name)
    folds, shape, patches, bias = (_drifting(rng, size, scale) for scale in (0.018, 0.055, 0.03, 0.30))
    scanner = {
        "gain": rng.uniform(0.72, 0.98), "gamma": rng.uniform(0.85, 1.2),
        "bias": rng.uniform(0.05, 0.18), "noise": rng.uniform(0.018, 0.045),
    }  # fmt: skip
    centre = rng.uniform(-0.3, 0.3)
    for depth in np.linspace(-1, 1, slices) * 0.6 + centre if slices > 1 else [centre]:
        grid = _place(head, size, rng)
        fields = {"folds": folds(depth), "shape": shape(depth), "patches": patches(depth)}
        signal = _section(grid, head, _cut(tumour, depth), fields)
        yield _scan(signal, scanner, bias(depth), rng)


def _place(head: dict[str, float], size: int, rng: Generator) -> _Grid:
    # The head moves a little between slices.
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis - head["dx"], axis - head["dy"])
    turn = head["turn"] + rng.normal(0, 0.012)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return _Grid(u / head["width"], v / head["height"])


def _draw_tumour(rng: Generator, name: str) -> _Tumour:
    radius, uptake = rng.uniform(0.13, 0.24), rng.uniform(0.70, 0.98)
    side = rng.choice((-1.0, 1.0))
    if name == "phantom_glioma":
        x, y = side * rng.uniform(0.20, 0.46), rng.uniform(-0.48, 0.28)
        return _Tumour(name, x, y, radius, uptake, rng.uniform(0.35, 0.80), rng.uniform(0.50, 1.0))
    if name == "phantom_meningioma":
        # From straight up (the falx) to just above the temporal lobe.
        angle = side * rng.uniform(0.12, 1.75)
        x, y = 0.68 * np.sin(angle), -0.08 - 0.63 * np.cos(angle)
        inwards = 1 - 0.55 * radius / np.hypot(x, y + 0.08)
        return _Tumour(name, x * inwards, (y + 0.08) * inwards - 0.08, radius, uptake, 0.0, rng.uniform(0, 0.35))
    radius *= 0.72
    return _Tumour(name, rng.normal(0, 0.025), 0.47 - 0.55 * radius, radius, uptake, rng.uniform(0, 0.35), 0.0)


def _cut(tumour: _Tumour, depth: float) -> _Tumour:
    radius = tumour.radius * np.sqrt(1 - 0.5 * depth**2)
    return replace(tumour, radius=radius)


def _section(grid: _Grid, head: dict[str, float], tumour: _Tumour, fields: dict[str, Field]) -> Field:
    """Return the noiseless signal of one section, in [0, 1]."""
    pushed = _pushed_aside(grid, tumour)
    outside = _brain_border(pushed) + 0.012 * fields["shape"]
    signal = _skull_and_face(grid, head, outside, fields)
    signal = _over(signal, _brain(pushed, head, outside, fields), outside)
    signal = _sella(grid, signal, fields)
    return _grow(grid, signal, tumour, outside, fields)


def _pushed_aside(grid: _Grid, tumour: _Tumour) -> _Grid:
    # Mass effect: what lies around the tumour is displaced away from its centre.
    dx, dy = grid.x - tumour.x, grid.y - tumour.y
    push = 0.30 * np.exp(-(dx**2 + dy**2) / (2 * (1.5 * tumour.radius) ** 2))
    return _Grid(grid.x - push * dx, grid.y - push * dy)


def _brain_border(grid: _Grid) -> Field:
    cerebrum = grid.ellipse(0, -0.10, 0.70, 0.62)
    temporal = np.minimum(grid.ellipse(-0.41, 0.32, 0.27, 0.22, 0.25), grid.ellipse(0.41, 0.32, 0.27, 0.22, -0.25))
    return np.minimum(cerebrum, temporal)


def _skull_and_face(grid: _Grid, head: dict[str, float], outside: Field, fields: dict[str, Field]) -> Field:
    skin = grid.ellipse(0, 0.02, 0.87 - 0.05 * grid.y, 0.93) + 0.004 * fields["shape"]
    face = MUSCLE + 0.07 * fields["patches"] + 0.05 * fields["shape"]
    signal = _over(np.full_like(grid.x, AIR), np.where(fields["patches"] > 1.1, 0.7 * FAT, face), skin)
    skull = np.minimum(grid.ellipse(0, -0.08, 0.80, 0.74), grid.ellipse(0, 0.36, 0.60, 0.28))
    scalp = head["scalp"] * (1 + 0.2 * fields["patches"])
    signal = _over(signal, FAT - 0.06 * fields["shape"], np.abs(skin + scalp / 2) - scalp / 2)
    signal = _over(signal, BONE + 0.16 * np.exp(-(((skull + 0.005) / 0.014) ** 2)), skull - 0.02)
    sinus = grid.ellipse(0, 0.72, 0.20, 0.12)
    signal = _over(signal, AIR, sinus + 0.02 * fields["shape"])
    return _over(signal, FLUID, outside - 0.028)


def _brain(grid: _Grid, head: dict[str, float], outside: Field, fields: dict[str, Field]) -> Field:
    gray, wide = GRAY + head["gray"], head["ventricle"]
    midline = np.abs(grid.x + 0.006 * fields["shape"])
    fissure = np.maximum(midline - 0.014, grid.y + 0.22)
    sylvian = np.abs(grid.y - 0.145 - 0.22 * (np.abs(grid.x) - 0.5) + 0.015 * fields["shape"])
    sylvian = np.maximum(sylvian - 0.016, 0.30 - np.abs(grid.x))
    depth = np.minimum(-outside, np.minimum(fissure, sylvian).clip(0))
    # Sulci are the zero lines of a band-limited random field; they end 0.2 below the surface.
    reach = head["folds"] * (1 - depth / 0.20).clip(0)
    sulcus, ribbon = np.abs(fields["folds"]) - 0.20 * reach, np.abs(fields["folds"]) - 0.75 * reach
    signal = WHITE + 0.02 * fields["patches"] + (gray - WHITE) * _inside(np.minimum(ribbon * 0.05, depth - 0.045), 0.02)
    for side in (-1, 1):
        nuclei = np.minimum(grid.ellipse(side * 0.19, 0.10, 0.11, 0.10), grid.ellipse(side * 0.28, -0.04, 0.06, 0.10))
        signal = _over(signal, gray + 0.03, nuclei + 0.01 * fields["shape"])
        horn = grid.ellipse(side * 0.105 * wide, -0.11, 0.115 * wide, 0.042 * wide, -side * 0.45)
        signal = _over(signal, FLUID, horn)
        signal = _over(signal, FLUID, grid.ellipse(side * 0.36, 0.30, 0.06 * wide, 0.016 * wide, side * 0.3))
    signal = _over(signal, FLUID, grid.ellipse(0, 0.13, 0.020 * wide, 0.10))
    signal = _over(signal, FLUID + 0.08, np.minimum(sulcus * 0.05, np.minimum(fissure, sylvian)))
    return signal


def _sella(grid: _Grid, signal: Field, fields: dict[str, Field]) -> Field:
    """Add what every head has in the midline of the base: cistern, chiasm, carotids, and a healthy gland."""
    signal = _over(signal, FLUID, grid.ellipse(0, 0.405, 0.17, 0.065) + 0.008 * fields["shape"])
    signal = _over(signal, WHITE, grid.ellipse(0, 0.385, 0.09, 0.014))
    signal = _over(signal, BONE + 0.1, grid.ellipse(0, 0.53, 0.19, 0.075))
    for side in (-1, 1):
        signal = _over(signal, 0.75 * FAT, grid.ellipse(side * 0.135, 0.475, 0.038, 0.045))
    return _over(signal, 0.70, grid.ellipse(0, 0.475, 0.070, 0.032))


def _grow(grid: _Grid, signal: Field, tumour: _Tumour, outside: Field, fields: dict[str, Field]) -> Field:
    if tumour.kind == "phantom_glioma":
        return _glioma(grid, signal, tumour, outside, fields)
    if tumour.kind == "phantom_meningioma":
        return _meningioma(grid, signal, tumour, outside, fields)
    return _pituitary(grid, signal, tumour, fields)


def _glioma(grid: _Grid, signal: Field, tumour: _Tumour, outside: Field, fields: dict[str, Field]) -> Field:
    r = tumour.radius
    border = grid.ellipse(tumour.x, tumour.y, r, r) + 0.30 * r * fields["shape"]
    within = np.maximum(border, outside + 0.02)
    oedema = np.maximum(border + 0.15 * r * fields["patches"] - 0.8 * r * tumour.oedema, outside + 0.03)
    signal = _over(signal, 0.33 + 0.02 * fields["patches"], oedema, softness=0.05)
    mass = tumour.uptake * (0.74 + 0.17 * fields["patches"])
    signal = _over(signal, mass, within)
    necrosis = grid.ellipse(tumour.x, tumour.y, r, r) + 0.22 * r * (fields["patches"] - fields["shape"])
    return _over(signal, 0.20 + 0.03 * fields["patches"], necrosis + r * (1 - tumour.necrosis), softness=0.03)


def _meningioma(grid: _Grid, signal: Field, tumour: _Tumour, outside: Field, fields: dict[str, Field]) -> Field:
    r = tumour.radius
    # It spreads along the dura more than into the brain.
    border = grid.ellipse(tumour.x, tumour.y, 1.12 * r, 0.88 * r, np.arctan2(tumour.x, -tumour.y))
    border = border + 0.09 * r * fields["shape"]
    dura = _brain_border(grid) - 0.03
    swelling = np.maximum(border - 0.9 * r * tumour.oedema, outside + 0.03)
    signal = _over(signal, 0.36, swelling, softness=0.05)
    signal = _over(signal, 0.24, np.maximum(border - 0.012, dura))
    signal = _over(signal, tumour.uptake + 0.025 * fields["patches"], np.maximum(border, dura))
    tail = np.maximum(np.abs(dura) - 0.012, border - 0.55 * r)
    return _over(signal, 0.85 * tumour.uptake, tail)


def _pituitary(grid: _Grid, signal: Field, tumour: _Tumour, fields: dict[str, Field]) -> Field:
    r = tumour.radius
    upper = grid.ellipse(tumour.x, tumour.y - 0.25 * r, 0.95 * r, 0.85 * r)
    lower = grid.ellipse(tumour.x, tumour.y + 0.75 * r, 0.80 * r, 0.60 * r)
    border = np.minimum(upper, lower) + 0.06 * r * fields["shape"]
    signal = _over(signal, tumour.uptake + 0.02 * fields["patches"], border)
    cyst = grid.ellipse(tumour.x, tumour.y - 0.2 * r, r, r) + 0.1 * r * fields["patches"]
    return _over(signal, 0.30, cyst + r * (1.15 - tumour.necrosis), softness=0.03)


def _scan(signal: Field, scanner: dict[str, float], bias: Field, rng: Generator) -> np.ndarray:
    """Return the signal as a scanner stores it: coil sensitivity, Rician noise, window, eight bits."""
    from scipy.ndimage import gaussian_filter

    signal = gaussian_filter(signal, 0.35) * np.exp(scanner["bias"] * bias)
    noise = rng.normal(0, scanner["noise"], (2, *signal.shape))
    magnitude = np.hypot(signal + noise[0], noise[1])
    return np.rint(255 * (scanner["gain"] * magnitude.clip(0, 1.2) ** scanner["gamma"]).clip(0, 1)).astype(np.uint8)


def _drifting(rng: Generator, size: int, scale: float) -> Callable[[float], Field]:
    """Return a random field of unit variance that changes slowly with depth; ``scale`` is a fraction of the width."""
    from scipy.ndimage import gaussian_filter

    here, there = (gaussian_filter(rng.normal(size=(size, size)), scale * size, mode="wrap") for _ in range(2))
    here, there = ((field - field.mean()) / field.std() for field in (here, there))
    return lambda depth: here * np.cos(0.7 * depth) + there * np.sin(0.7 * depth)


def _inside(distance: Field, softness: float) -> Field:
    return (0.5 - distance / softness).clip(0, 1)


def _over(below: Field, above: Field | float, distance: Field, softness: float = 0.018) -> Field:
    """Lay one tissue over another inside a border; ``softness`` is the width of the transition."""
    share = _inside(distance, softness)
    return below * (1 - share) + above * share
