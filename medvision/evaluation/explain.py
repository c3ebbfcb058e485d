"""Which places of an image speak for a class: a heat map to look at, which proves nothing.

Grad-CAM where a network has maps of features, occlusion where it has not, as vision transformers. A map shows where the
network looked, not whether it was right to, and a sensible map is no evidence that a prediction is (Adebayo et al.,
NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from medvision.evaluation.scoring import Images
from medvision.records import PackageInfo, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from medvision.models.network import Network

_GRID = 8
# Of occluded copies at a time: a large transformer on a small GPU takes that many.
_BATCH = 16


def saliency(network: Network, image: np.ndarray, class_index: int) -> np.ndarray:
    """Return how much each place of an image speaks for a class, float32 (H, W) in [0, 1].

    0 everywhere where nothing speaks for it, and for an image of one colour. The network stays as it is.

    Parameters
    ----------
    network: where it computes, in either mode, with weights frozen or not.
    image: uint8 (H, W, C), as the network takes it.
    """
    import torch

    if (image == image[:1, :1]).all():
        return np.zeros(image.shape[:2], dtype=np.float32)
    with torch.inference_mode(False), torch.no_grad(), _evaluating(network):
        device = next(network.parameters()).device
        pixels = torch.tensor(image, device=device).permute(2, 0, 1)[None]
        features = _feature_maps(network, pixels)
        places = _occlusion(network, pixels, class_index) if features is None else _cam(network, features, class_index)
        return _as_map(places, image.shape[:2])


def package_saliency(
    info: PackageInfo,
    networks: Sequence[Network],
    inputs: Callable[[Preprocessing], Images],
    position: int,
    class_index: int,
) -> np.ndarray:
    """Return the mean of the members' maps by their weight, float32 (H, W) in [0, 1] of the largest member's input.

    ``inputs`` returns the images as a member takes them, as for ``score_package``; ``position`` is that of the image.
    """
    side = max(member.preprocessing.image_size for member in info.members)
    weights = _member_weights(info, class_index)
    total = np.zeros((side, side), dtype=np.float32)
    for weight, member, network in zip(weights, info.members, networks, strict=True):
        image = inputs(member.preprocessing)[position : position + 1][0]
        total += weight * _resize(saliency(network, image, class_index), (side, side))
    return np.clip(total, 0, 1)


def render_map(places: np.ndarray) -> bytes:
    """Return a heat map (H, W) in [0, 1] as a PNG to lay over its image: bare where nothing speaks for the class."""
    from io import BytesIO

    from matplotlib import colormaps
    from matplotlib.image import imsave

    colours = colormaps["YlOrRd"](np.clip(places, 0, 1))
    colours[..., 3] = np.clip(places, 0, 1)
    file = BytesIO()
    imsave(file, colours, format="png")
    return file.getvalue()


def _cam(network: Network, features: Tensor, class_index: int) -> Tensor:
    """Return Grad-CAM's map (H, W) of feature maps (1, C, H, W) in the network's own layout (Selvaraju et al. 2017)."""
    import torch

    backbone: Any = network.backbone
    leaf = features.detach().requires_grad_()
    with torch.enable_grad():
        # A copy, since some heads begin with an activation in place, which a leaf does not allow.
        logit = network.head(backbone.forward_head(leaf.clone()))[0, class_index]
        (gradient,) = torch.autograd.grad(logit, leaf)
    maps, slopes = (_channels_first(network, each)[0].float() for each in (features, gradient))
    return (slopes.mean(dim=(1, 2), keepdim=True) * maps).sum(dim=0).relu()


def _occlusion(network: Network, pixels: Tensor, class_index: int) -> Tensor:
    """Return by how much the class loses when each of 8 x 8 cells is grey (Zeiler and Fergus, ECCV 2014).

    A fall of the log odds, which still move where the probability is 1. Grey is the mean pixel of the image.
    """
    import torch

    mean = pixels.float().mean(dim=(2, 3), keepdim=True).round().to(pixels.dtype)
    _, _, height, width = pixels.shape
    rows, columns = min(_GRID, height), min(_GRID, width)
    copies = pixels.repeat(rows * columns, 1, 1, 1)
    for cell, copy in enumerate(copies):
        row, column = divmod(cell, columns)
        copy[
            :,
            height * row // rows : height * (row + 1) // rows,
            width * column // columns : width * (column + 1) // columns,
        ] = mean[0]
    logits = torch.cat([network(part).float() for part in (pixels, *copies.split(_BATCH))])
    others = torch.arange(logits.shape[1], device=logits.device) != class_index
    odds = logits[:, class_index] - logits[:, others].logsumexp(dim=1)
    return (odds[0] - odds[1:]).relu().view(rows, columns)


def _feature_maps(network: Network, pixels: Tensor) -> Tensor | None:
    """Return the backbone's last features where they are maps of more than one place, else None."""
    backbone: Any = network.backbone
    features = backbone.forward_features(network.normalize(pixels))
    is_map = features.ndim == 4 and min(_channels_first(network, features).shape[2:]) > 1
    return features if is_map else None


def _channels_first(network: Network, features: Tensor) -> Tensor:
    # timm's name for the layout; swin has the channels last.
    return features.permute(0, 3, 1, 2) if getattr(network.backbone, "output_fmt", "NCHW") == "NHWC" else features


def _as_map(places: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Resize, and scale the highest value to 1; no place of evidence gives zeros."""
    resized = _resize(places.cpu().numpy(), shape)
    highest = float(resized.max())
    return resized / highest if highest > 0 else np.zeros(shape, dtype=np.float32)


def _resize(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(places, dtype=np.float32))[None, None]
    return torch.nn.functional.interpolate(tensor, shape, mode="bilinear", align_corners=False)[0, 0].numpy()


def _member_weights(info: PackageInfo, class_index: int) -> np.ndarray:
    """Return the share of each member in the score of a class; of stacking the size of its coefficients for it.

    Where no member has a share, as in a stack that says nothing of the class, all have the same.
    """
    weights = np.array(info.combination.weights)
    if info.combination.rule == "stacking":
        weights = np.abs(info.combination.coefficients[class_index]).reshape(len(info.members), -1).sum(axis=1)
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))


@contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    """Switch to evaluation, so that one image does not move the statistics of normalization; then back."""
    modes: list[tuple[Any, bool]] = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
