"""The sparsity-guided smoothing loss: the estimate's edges are those of a smoothed guide."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sparsity_map(volume: Tensor) -> Tensor:
    r"""Edge strength of (batch, 1, z, y, x) in the xy plane: nothing where the volume is smooth, hence sparse.

    .. math:: D_s(V) = |G_x * V| + |G_y * V|

    with the Sobel kernels as they are usually printed, of whole numbers: 8 times the slope per voxel. They act within
    the xy plane, for the paper names no z; of the three axes that is the one along which a tomogram is worst resolved.

    Returns:
        (batch, 1, z, y - 2, x - 2): borders have no complete neighbourhood.
    Source: `yang2021`, Equation 4.
    """
    smooth = torch.tensor([1.0, 2.0, 1.0], dtype=volume.dtype, device=volume.device)
    slope = torch.tensor([-1.0, 0.0, 1.0], dtype=volume.dtype, device=volume.device)
    sobel = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])
    return F.conv3d(volume, sobel[:, None, None]).abs().sum(1, keepdim=True)


def sparsity_loss(estimate: Tensor, sparsity: Tensor) -> Tensor:
    r"""Mean squared difference between the estimate's edges and a guide's.

    .. math:: L_\mathrm{smooth} = \mathrm{mean}\,(D_s(f(V)) - D_s(\hat V))^2

    Args:
        estimate: (batch, 1, z, y, x). sparsity: :func:`sparsity_map` of the guide, (batch, 1, z, y - 2, x - 2).
    Source: `yang2021`, Equation 5.
    """
    return (sparsity_map(estimate) - sparsity).square().mean()
