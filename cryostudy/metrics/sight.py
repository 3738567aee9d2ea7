"""Which input voxels an output voxel depends on: the nearest, and how far most of the dependence reaches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SEEN = 0.01  # of the row's largest derivative; less than that counts as not seen


def sight(function: Callable[[Tensor], Tensor], x: Tensor, voxel: tuple[int, int, int]) -> tuple[float, float]:
    r"""Distances, in voxels, of the nearest input that an output voxel sees, and within which lie 90 % of what it sees.

    With the derivatives :math:`g_q = |\partial f_p / \partial x_q|`, an input q is seen where g is at least a hundredth
    of the largest; the second number is the radius around p that holds 90 % of the sum of g, an *effective* receptive
    field.

    Args:
        function: (1, 1, z, y, x) -> the same shape. x: where to take the derivative. voxel: p.
    Returns:
        (nearest, reach); nearest is 0 where a voxel sees itself.
    """
    x = x.detach().clone().requires_grad_()
    (row,) = torch.autograd.grad(function(x)[(0, 0, *voxel)], x)
    weight = row[0, 0].abs().double().cpu()
    axes = [torch.arange(n, dtype=torch.float64) - p for n, p in zip(weight.shape, voxel, strict=True)]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt().flatten()
    order = distance.argsort()
    gathered = weight.flatten()[order].cumsum(0)
    near = float(distance[weight.flatten() >= SEEN * weight.max()].min())
    return near, float(distance[order][int(torch.searchsorted(gathered, 0.9 * gathered[-1]))])
