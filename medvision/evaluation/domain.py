"""Whether an image is of the kind that a model was made for, or a photograph, noise, or another part of the body.

A model answers whatever it is shown, and may be sure of it. Here an image is held against those of train, by views of
it that need no network, so that the answer is the same with every engine. Within a view train is a Gaussian in a few
principal directions and has one variance in all others; distances within and off those directions are the T2 and the Q
of process monitoring (Jackson and Mudholkar, Technometrics 1979).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from medvision.data.descriptor import VERSION, VIEWS, describe_images
from medvision.errors import DataInvalid
from medvision.evaluation.conformal import conformal_quantile
from medvision.evaluation.scoring import Images
from medvision.records import Domain, DomainView, PackageInfo, Preprocessing

COVERAGE = 0.995

_DIRECTIONS = 24
_FOLDS = 5
# Share of train images, not learnt from, that lie below a view's limits.
_WITHIN = 0.99
# More teach nothing new of 24 directions: 50,000 images cost the time and the memory of these.
_MOST_IMAGES = 4096
_BATCH = 64
# A number that hardly varies in train, as the colour of gray images, is not told apart by less than this.
_LEAST_SCALE = 0.02
_LEAST_VARIANCE = 1e-3
_LEAST_LIMIT = 1e-6
# The same image in another batch may differ in the last digits: none of val may fall outside for that.
_SLACK = 1 + 1e-6


@dataclass(frozen=True)
class _View:
    """A view as arrays: ``centre`` (d,), ``scale`` (d,), ``directions`` (k, d), ``variances`` (k,)."""

    centre: np.ndarray
    scale: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    residual: float


def domain_preprocessing(info: PackageInfo) -> Preprocessing:
    """Return the form in which a package's images are held against its domain: that of its largest member."""
    return max((member.preprocessing for member in info.members), key=lambda form: (form.image_size, form.channels))


def fit_domain(train: Images, val: Images, *, units: np.ndarray | None = None) -> Domain:
    """Fit what images are like on train, and from where on they are unlike it on val.

    The threshold is the conformal quantile of val's distances, or the largest of them where val's units are too few for
    COVERAGE. Nothing else is fitted on val, so that an image of a new patient is outside with a probability of at most
    1 - coverage. Of more than 4,096 images every second one, say, is taken: memory is flat in their number.

    Parameters
    ----------
    train: at least 2 images. val: at least 1.
    units: patient of each val image (n,), which count alike however many images they have; None: each image is one.
    """
    units = np.arange(len(val)) if units is None else units
    described = _describe(train)
    views = tuple(_fit_view(name, values) for name, values in zip(VIEWS, described, strict=True))
    distances = _mean_ratio(views, _describe(val))
    units = units[:: _step(len(val))]
    n_units = len(np.unique(units))
    coverage = min(COVERAGE, n_units / (n_units + 1))
    threshold = max(conformal_quantile(distances, units, coverage), _LEAST_LIMIT) * _SLACK
    return Domain(views, threshold, coverage, len(described[0]), n_units, VERSION)


def domain_distances(images: np.ndarray, domain: Domain) -> np.ndarray:
    """Return how unlike train images are, (n,) float64: outside of the domain above 1.

    Parameters
    ----------
    images: uint8 (n, H, W, 1 or 3), n >= 1, in the form of ``domain_preprocessing``.

    Raises
    ------
    DataInvalid: the domain was fitted by another version of what images are described by.
    """
    if domain.descriptor != VERSION:
        raise DataInvalid(
            f"The package's domain was fitted to descriptor {domain.descriptor} of images, and this version of "
            f"medvision has descriptor {VERSION}. Pack it again: medvision train --resume."
        )
    return _mean_ratio(domain.views, describe_images(images)) / domain.threshold


def measure_distances(images: Images, domain: Domain) -> np.ndarray:
    """Return the distances (n,) of many images, read batch by batch."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([domain_distances(images[start : start + _BATCH], domain) for start in starts])


def _step(n: int) -> int:
    return -(-n // _MOST_IMAGES)


def _describe(images: Images) -> list[np.ndarray]:
    """Return the views of every image, or of every second, third ... one where there are many."""
    step = _step(len(images))
    span = step * _BATCH
    batches = [describe_images(images[start : start + span : step]) for start in range(0, len(images), span)]
    return [np.concatenate(view) for view in zip(*batches, strict=True)]


def _fit_view(name: str, values: np.ndarray) -> DomainView:
    limits = np.quantile(_held_out_distances(values), _WITHIN, axis=0)
    view = _learn(values)
    return DomainView(
        name,
        centre=_to_text(view.centre),
        scale=_to_text(view.scale),
        directions=_to_text(view.directions),
        variances=_to_text(view.variances),
        residual=view.residual,
        limits=(float(limits[0]), float(limits[1])),
    )


def _held_out_distances(values: np.ndarray) -> np.ndarray:
    """Return T2 and Q of each row (n, 2) in a view that was learnt from others."""
    # Neighbours are often of one patient: a fold is of four runs of them.
    n_runs = min(4 * _FOLDS, len(values))
    folds = np.arange(len(values)) * n_runs // len(values) % _FOLDS
    found = np.zeros((len(values), 2))
    for fold in np.unique(folds):
        found[folds == fold] = _distances(_learn(values[folds != fold]), values[folds == fold])
    return found


def _learn(values: np.ndarray) -> _View:
    """Return the principal directions of rows (n, d), and what varies in them and off them."""
    values = values.astype(np.float64)
    centre, scale = values.mean(axis=0), np.maximum(values.std(axis=0), _LEAST_SCALE)
    scaled = (values - centre) / scale
    variances, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    k = min(_DIRECTIONS, len(values) - 1, values.shape[1] - 1)
    rising, rest = variances[len(variances) - k :], variances[: len(variances) - k]
    residual = max(float(rest.mean()), _LEAST_VARIANCE)
    directions = vectors[:, ::-1].T[:k]
    # An eigenvector may point either way: let its largest part be positive, for the same bytes everywhere.
    signs = np.sign(directions[np.arange(k), np.abs(directions).argmax(axis=1)])
    return _View(centre, scale, directions * signs[:, np.newaxis], np.maximum(rising[::-1], residual), residual)


def _distances(view: _View, values: np.ndarray) -> np.ndarray:
    """Return T2 and Q of rows (n, d), in variances: (n, 2)."""
    scaled = (values - view.centre) / view.scale
    within = scaled @ view.directions.T
    off = scaled - within @ view.directions
    return np.stack([(within**2 / view.variances).sum(axis=1), (off**2).sum(axis=1) / view.residual], axis=1)


def _mean_ratio(views: tuple[DomainView, ...], described: list[np.ndarray] | tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the mean over T2 and Q of all views of what they are in units of their limits, (n,)."""
    ratios = [
        _distances(_to_arrays(view), values) / np.maximum(view.limits, _LEAST_LIMIT)
        for view, values in zip(views, described, strict=True)
    ]
    return np.concatenate(ratios, axis=1).mean(axis=1)


def _to_text(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f2").tobytes()).decode("ascii")


def _to_arrays(view: DomainView) -> _View:
    centre, scale, directions, variances = (
        np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)
        for text in (view.centre, view.scale, view.directions, view.variances)
    )
    return _View(centre, scale, directions.reshape(len(variances), len(centre)), variances, view.residual)
