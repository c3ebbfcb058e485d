"""Lay one thumbnail over another: the affine map between a picture and a cropped, turned or shifted copy of it.

Gauss-Newton on the pixels, coarse to fine, inverse compositional (Baker and Matthews, IJCV 2004), with a gain and an
offset of brightness fitted along; many pairs at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Side in pixels, blur in pixels of that side, and steps. The first one sees shifts of a fifth of the side; without the
# last one an eighth of the crops is a pixel off, and their details do not agree.
_STAGES = ((16, 1.25, 12), (32, 1.2, 8), (64, 1.0, 8))
# What is less alike than this after a stage is given up. Copies reach 0.95, and most other pairs less than 0.8.
_COARSE = 0.85
_BATCH = 256
# A copy that shows less than half of the original, or one of its details, is no copy that can be told for sure.
_OVERLAP = 0.5
_SMALLEST, _LARGEST = 0.6, 1.7


def align(fixed: np.ndarray, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Warp each moving thumbnail onto the fixed one of the same position.

    Parameters
    ----------
    fixed, moving: uint8 (n, 64, 64).

    Returns
    -------
    uint8 (n, 64, 64) and bool (n, 64, 64): the warped thumbnails, and which pixels of them stem from the moving ones.
    Where no sensible map was found, no pixel does.
    """
    warped, known = np.zeros_like(fixed), np.zeros(fixed.shape, dtype=bool)
    for start in range(0, len(fixed), _BATCH):
        part = slice(start, start + _BATCH)
        warped[part], known[part] = _align(fixed[part], moving[part])
    return warped, known


def _align(fixed: np.ndarray, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.inference_mode():
        pair = torch.from_numpy(np.stack([fixed, moving])).float()
        maps = torch.eye(3).repeat(len(fixed), 1, 1)
        hopeful = torch.ones(len(fixed), dtype=torch.bool)
        for stage in _STAGES:
            maps[hopeful], alike = _fit(pair[:, hopeful], maps[hopeful], *stage)
            hopeful[hopeful.clone()] = alike >= _COARSE
        warped, known = _warp(pair[1][:, None], maps)
        scale = torch.linalg.det(maps[:, :2, :2]).clamp(min=0).sqrt()
        sound = (known.mean((1, 2, 3)) >= _OVERLAP) & (scale >= _SMALLEST) & (scale <= _LARGEST) & hopeful
        known = (known > 0) & sound[:, None, None, None]
        return warped[:, 0].round().byte().numpy(), known[:, 0].numpy()


def _fit(pair: Tensor, maps: Tensor, side: int, blur: float, steps: int) -> tuple[Tensor, Tensor]:
    """Improve maps (n, 3, 3) at one resolution; return them, and the correlation of each pair under its map."""
    from torch.nn import functional

    if len(maps) == 0:
        return maps, maps[:, 0, 0]
    still, other = (_standardize(_blur(functional.adaptive_avg_pool2d(images[:, None], side), blur)) for images in pair)
    columns = _columns(still)
    for _ in range(steps):
        maps = maps @ _step(columns, other, maps)
    warped, known = _warp(other, maps)
    return maps, _correlate(still, warped, known)


def _step(columns: Tensor, other: Tensor, maps: Tensor) -> Tensor:
    """Return the maps that, applied first, bring the warped images nearer to the still ones."""
    import torch

    warped, known = _warp(other, maps)
    n = len(other)
    weighted = columns * known.reshape(n, -1, 1)
    normal = weighted.transpose(1, 2) @ columns
    # Where an image has no slope in some direction, nothing moves in it.
    normal += torch.diag_embed(1e-4 * normal.diagonal(dim1=1, dim2=2) + 1e-3)
    fitted = torch.linalg.solve(normal, weighted.transpose(1, 2) @ warped.reshape(n, -1, 1))[:, :, 0]
    # A negative or tiny gain would throw the map far away.
    moved = (fitted[:, :6] / fitted[:, 6:7].clamp(min=0.3)).clamp(-0.2, 0.2).reshape(n, 2, 3)
    step = torch.eye(3).repeat(n, 1, 1)
    step[:, :2] += moved
    return torch.linalg.inv(step)


def _standardize(images: Tensor) -> Tensor:
    centred = images - images.mean((1, 2, 3), keepdim=True)
    return centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def _correlate(still: Tensor, warped: Tensor, known: Tensor) -> Tensor:
    total = known.sum((1, 2, 3)).clamp(min=1)
    a, b = ((x - ((x * known).sum((1, 2, 3)) / total).view(-1, 1, 1, 1)) * known for x in (still, warped))
    powers = (a * a).sum((1, 2, 3)) * (b * b).sum((1, 2, 3))
    return (a * b).sum((1, 2, 3)) / powers.sqrt().clamp(min=1e-6)


def _columns(images: Tensor) -> Tensor:
    """Return (n, pixels, 8): how each pixel changes with each number of an affine map, with gain, and with offset.

    The map is one of coordinates in [-1, 1].
    """
    import torch

    n, side = len(images), images.shape[-1]
    down, right = (slope.reshape(n, -1) * (side / 2) for slope in torch.gradient(images, dim=(2, 3)))
    y, x = (grid.reshape(-1) for grid in _coordinates(side))
    flat = images.reshape(n, -1)
    return torch.stack([right * x, right * y, right, down * x, down * y, down, flat, torch.ones_like(flat)], dim=2)


def _warp(images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images seen through affine maps, and 1 for each pixel that lies within its image, else 0."""
    import torch
    from torch.nn import functional

    side = images.shape[-1]
    y, x = (grid.reshape(-1) for grid in _coordinates(side))
    grid = (torch.stack([x, y, torch.ones_like(x)], dim=1) @ maps[:, :2].transpose(1, 2)).view(-1, side, side, 2)
    within = (grid.abs() <= 1 - 1 / side).all(dim=3).float()[:, None]
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False), within


def _coordinates(side: int) -> tuple[Tensor, ...]:
    import torch

    line = (torch.arange(side) + 0.5) * 2 / side - 1
    return torch.meshgrid(line, line, indexing="ij")


def _blur(images: Tensor, sigma: float) -> Tensor:
    import torch
    from torch.nn import functional

    radius = int(np.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    line = line / line.sum()
    padded = functional.pad(images, (radius, radius, radius, radius), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
