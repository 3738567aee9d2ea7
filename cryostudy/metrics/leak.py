"""Is a blind-spot network blind?"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def leak(function: Callable[[Tensor], Tensor], x: Tensor, voxels: Sequence[tuple[int, int, int]]) -> float:
    r"""How much an output voxel depends on the input voxel it should not see, relative to those it may see.

    .. math:: \max_p\; |\partial f_p / \partial x_p| \;/\; \max_q |\partial f_p / \partial x_q|

    0 for a J-invariant function (Batson and Royer 2019, Definition 1); lower is better. Give float64 for an exact test.

    Args:
        function: (1, 1, z, y, x) -> the same shape. x: where to take the derivative. voxels: those p to try.
    """
    x = x.detach().clone().requires_grad_()
    y = function(x)
    worst = 0.0
    for voxel in voxels:
        (row,) = torch.autograd.grad(y[(0, 0, *voxel)], x, retain_graph=True)
        worst = max(worst, float(row[(0, 0, *voxel)].abs() / row.abs().max()))
    return worst
