"""FFDNet (Zhang et al. 2018): the chain at half the sampling, told how strong the noise is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.models.dncnn import chain


class FFDNet(nn.Module):
    """(batch, 1, z, y, x) and the noise level of each (batch,) -> the clean volume, any sides.

    The eight sub-lattices of stride 2 and one constant map of the level are the channels of a chain of `depth` 3^3
    convolutions, which predicts the eight clean sub-lattices; `zhang2018`, Section III, with cubes for squares. A voxel
    sees about 2 `depth` voxels to each side.
    """

    def __init__(self, depth: int = 15, channels: int = 64) -> None:
        super().__init__()
        self.body = chain(depth, channels, 9, 8)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        shape = x.shape[-3:]
        pad = [p for side in reversed(shape) for p in (0, side % 2)]
        parts = unshuffle(F.pad(x, pad, mode="replicate") if any(pad) else x)
        levels = level.to(x.dtype).view(-1, 1, 1, 1, 1).expand(-1, 1, *parts.shape[-3:])
        return shuffle(self.body(torch.cat([parts, levels], 1)))[..., : shape[0], : shape[1], : shape[2]]


def unshuffle(x: Tensor) -> Tensor:
    """(n, 1, 2 z, 2 y, 2 x) -> (n, 8, z, y, x): the sub-lattices of stride 2 as channels."""
    n, (d, h, w) = x.shape[0], (side // 2 for side in x.shape[-3:])
    return x.reshape(n, d, 2, h, 2, w, 2).permute(0, 2, 4, 6, 1, 3, 5).reshape(n, 8, d, h, w)


def shuffle(x: Tensor) -> Tensor:
    """The inverse of :func:`unshuffle`."""
    n, _, d, h, w = x.shape
    return x.reshape(n, 2, 2, 2, d, h, w).permute(0, 4, 1, 5, 2, 6, 3).reshape(n, 1, 2 * d, 2 * h, 2 * w)
