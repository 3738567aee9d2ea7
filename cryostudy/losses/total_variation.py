"""The total-variation loss."""

from torch import Tensor


def total_variation(estimate: Tensor) -> Tensor:
    r"""Mean absolute difference between neighbours, summed over the three axes (anisotropic total variation).

    .. math:: L_\mathrm{TV} = \sum_{a \in \{z, y, x\}} \mathrm{mean}\,|\nabla_a f(V)|

    Args:
        estimate: (..., z, y, x).
    Source: `liu2025`, Equation 10, with the mean in place of the sum: a sum over voxels would swamp the other terms,
    which are means.
    """
    return sum((estimate.diff(dim=axis).abs().mean() for axis in (-1, -2, -3)), start=estimate.new_zeros(()))
