"""The expectancy constraint: the estimate's mean is that of a smoothed guide."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def expectancy_loss(estimate: Tensor, guide: Tensor, side: int = 3) -> Tensor:
    r"""Squared difference of the global means of local means, averaged over the batch.

    .. math:: L_\mathrm{exp} = (E(\mu_f) - E(\mu_{\hat V}))^2, \quad \mu_V = V * 1_S

    The local means (over boxes of `side`^3 voxels inside the volume; the paper leaves S open) cancel in the global one
    but at the border, where voxels lie in fewer boxes: this is a constraint on one number a patch.

    Args:
        estimate, guide: (batch, 1, z, y, x), of one shape.
    Source: `yang2021`, Equations 6 and 7.
    """
    box = [min(side, n) for n in estimate.shape[-3:]]
    mean = F.avg_pool3d(estimate - guide, box, stride=1).mean((1, 2, 3, 4))
    return mean.square().mean()
