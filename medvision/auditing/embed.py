"""What images show, as points in a space: embeddings of a pretrained network, or a descriptor made by hand.

A network's embeddings tell more; the descriptor needs no weights, and no network is ever fetched for an audit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvision.config import Config, PerformanceConfig
from medvision.data.cache import open_cache
from medvision.data.manifest import Manifest
from medvision.data.parallel import with_progress
from medvision.errors import MedvisionError

if TYPE_CHECKING:
    from medvision.models.network import Network

# Of the 512 to 2,048 numbers of an embedding the rest is noise to neighbours, and would cost ten times the time.
_DIMENSIONS = 128
# With as many components as images nothing is left out of them but rounding, and its largest would look like outliers:
# of 100 phantoms it were 20. With a quarter as many it is 4 in 1,000 at most, from 51 images on.
_IMAGES_PER_DIMENSION = 4
_WHITENED = 64
_BATCH = 64
_BINS = 9
_CELL = 8
_BY_HAND = "gradient descriptor; no pretrained weights were at hand"
# The statistics of ImageNet, which the weights of the hub expect.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Embeddings:
    """One point an image; ``made_by`` says what it was made with, for people.

    ``points``: float32 (n, d), the principal components. ``residuals``: float32 (n,), the squared length of what they
    leave out. ``is_learned``: by a network.
    """

    points: np.ndarray
    residuals: np.ndarray
    made_by: str
    is_learned: bool

    @property
    def directions(self) -> np.ndarray:
        """Return (n, at most 64) directions, whose products are likenesses.

        All components weigh alike (whitening; Jegou and Chum, ECCV 2012): the first ones tell kinds of images apart,
        the later ones images.
        """
        white = self.points[:, :_WHITENED] / (self.points[:, :_WHITENED].std(axis=0) + 1e-6)
        return white / (np.linalg.norm(white, axis=1, keepdims=True) + 1e-12)


def embed_images(manifest: Manifest, thumbnails: np.ndarray, config: Config) -> Embeddings:
    """Embed all images with the configured network if its weights are at hand, else with the descriptor."""
    network = _network_at_hand(config)
    if network is None:
        return reduce_dimensions(describe(thumbnails), _BY_HAND, is_learned=False)
    images = open_cache(
        manifest,
        image_size=network.preprocessing.image_size,
        channels=3,
        folder=config.paths.state / "cache",
        workers=config.performance.workers,
    )
    features = _run(network, images, config.performance)
    return reduce_dimensions(features, f"pretrained {network.architecture.model}", is_learned=True)


def describe(thumbnails: np.ndarray) -> np.ndarray:
    """Return histograms of gradient directions in cells of 8 pixels (Dalal and Triggs, CVPR 2005); float32 (n, 576)."""
    described = [_describe(thumbnails[start : start + 1024]) for start in range(0, len(thumbnails), 1024)]
    return np.concatenate(described)


def _describe(thumbnails: np.ndarray) -> np.ndarray:
    down, right = np.gradient(thumbnails.astype(np.float32), axis=(1, 2))
    strength = np.hypot(down, right)
    direction = ((np.arctan2(down, right) % np.pi) * (_BINS / np.pi)).astype(int) % _BINS
    n, side = len(thumbnails), thumbnails.shape[1]
    cells = side // _CELL
    histograms = np.stack(
        [
            (strength * (direction == each)).reshape(n, cells, _CELL, cells, _CELL).sum(axis=(2, 4))
            for each in range(_BINS)
        ],
        axis=-1,
    )
    histograms /= np.linalg.norm(histograms, axis=-1, keepdims=True) + strength.mean() + 1e-6
    return histograms.reshape(n, -1)


def weights_at_hand(config: Config) -> tuple[object, ...]:
    """Return what tells the weights that images are embedded with from others; nothing if none are on this machine."""
    from medvision.models.catalog import OWN, find

    entry, pretrained = find(config.training.model), config.training.pretrained
    if entry.timm_name == OWN or pretrained is False:
        return ()
    if pretrained is True:
        from medvision.models.hub import is_downloaded

        return (entry.timm_name,) if is_downloaded(entry.timm_name) else ()

    from medvision.models.weights import find_weights

    try:
        file = find_weights(pretrained, config.training.model, entry.timm_name).resolve()
        status = file.stat()
    except (MedvisionError, OSError):
        return ()
    return (str(file), status.st_size, status.st_mtime_ns)


def _network_at_hand(config: Config) -> Network | None:
    """Return the network of the settings with pretrained weights from this machine; None if there are none."""
    if not weights_at_hand(config):
        return None

    from medvision.models.catalog import find
    from medvision.models.network import build_network

    entry, pretrained = find(config.training.model), config.training.pretrained
    architecture = entry.architecture(n_classes=2, channels=3, image_size=config.transform.image_size)
    try:
        return build_network(architecture, mean=_MEAN, std=_STD, pretrained=pretrained)
    except MedvisionError:
        # What is wrong with the weights is for training to say: an audit can do without them.
        return None


def _run(network: Network, images: np.ndarray, performance: PerformanceConfig) -> np.ndarray:
    from medvision.data.loading import to_tensor
    from medvision.models.devices import choose_device
    from medvision.models.embedding import embed_batches

    starts: Iterator[int] = iter(range(0, len(images), _BATCH))
    total = -(-len(images) // _BATCH)
    batches = (
        to_tensor(np.array(images[start : start + _BATCH]))
        for start in with_progress(starts, total, "Embedding images")
    )
    return embed_batches(network, batches, device=choose_device(performance), half=True)


def reduce_dimensions(features: np.ndarray, made_by: str, *, is_learned: bool) -> Embeddings:
    """Return the first 128 principal components of features (n, d), or one for every four images."""
    from sklearn.decomposition import PCA

    centred = features - features.mean(axis=0)
    n_components = max(1, min(_DIMENSIONS, len(features) // _IMAGES_PER_DIMENSION, features.shape[1]))
    components = PCA(n_components, svd_solver="randomized", random_state=0).fit(centred)
    points = components.transform(centred).astype(np.float32)
    residuals = np.square(centred).sum(axis=1) - np.square(points).sum(axis=1)
    return Embeddings(points, np.maximum(residuals, 0).astype(np.float32), made_by, is_learned)
