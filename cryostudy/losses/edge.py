"""The edge enhancement loss and the multi-directional edge map it compares."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

DIRECTIONS = torch.tensor([d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0)], dtype=torch.float32)


def edge_map(volume: Tensor) -> Tensor:
    r"""Edge strength of (batch, 1, z, y, x), averaged over the 13 directions of the 26-neighbourhood.

    .. math:: K(V) = \frac{1}{13} \sum_d \left| \hat d \cdot \nabla V \right|

    with the gradient from 3-D Sobel kernels normalised to units of the volume per voxel. The output is two voxels
    smaller on each axis: borders have no complete neighbourhood. The paper leaves the kernels to a supplement that is
    not in the text; these directions are this study's reading of "multi-directional".

    Returns:
        (batch, 1, z - 2, y - 2, x - 2).
    """
    smooth = torch.tensor([0.25, 0.5, 0.25], dtype=volume.dtype, device=volume.device)
    slope = torch.tensor([-0.5, 0.0, 0.5], dtype=volume.dtype, device=volume.device)
    sobel = torch.stack(
        [torch.einsum("i,j,k->ijk", *(slope if a == axis else smooth for a in range(3))) for axis in range(3)]
    )
    gradient = F.conv3d(volume, sobel[:, None])
    directions = F.normalize(DIRECTIONS, dim=1).to(volume)
    return F.conv3d(gradient, directions[:, :, None, None, None]).abs().mean(1, keepdim=True)


def edge_loss(estimate: Tensor, edges: Tensor) -> Tensor:
    r"""Mean squared difference between the estimate's edge map and a reference edge map.

    .. math:: L_\mathrm{edge} = \mathrm{mean}\,(K(f(V)) - K(V_b))^2

    Args:
        estimate: (batch, 1, z, y, x).
        edges: `edge_map` of the bilateral-filtered noisy volume V_b, (batch, 1, z - 2, y - 2, x - 2).
    Source: `liu2025`, Equation 9.
    """
    return (edge_map(estimate) - edges).square().mean()
