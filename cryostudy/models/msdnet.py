"""The mixed-scale dense network, in three dimensions."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

DILATIONS = 10  # of the layers in turn: 1, 2, ... 10


class MSDNet(nn.Module):
    """MS-D Net of (batch, 1, z, y, x) -> the same, any sides (`pelt2018`; in 3-D as `jones2026` use it).

    Every layer is one dilated 3^3 convolution of *all* earlier feature maps and the input to a single new map (width 1,
    the paper's), with a ReLU; the output is a linear combination of all of them. Scales are mixed by dilations that
    cycle from 1 to 10 instead of by pooling, so nothing is down-sampled and the network is equivariant to every
    shift. A voxel reaches `reach` voxels: the sum of all dilations.

    `channels * levels` is the depth: at width 1 the layers *are* the channels. The paper's 100 layers are
    `MSDNet(100, 1)`, with 137 thousand weights.
    """

    taps: Tensor

    def __init__(self, channels: int = 32, levels: int = 1) -> None:
        super().__init__()
        self.dilations = [1 + k % DILATIONS for k in range(channels * levels)]
        self.reach = sum(self.dilations)
        self.weights = nn.ParameterList(torch.empty(27, 1 + k, 1, 1, 1) for k in range(len(self.dilations)))
        self.biases = nn.Parameter(torch.zeros(len(self.dilations), 1))
        self.last = nn.Conv3d(1 + len(self.dilations), 1, 1)
        self.register_buffer("taps", torch.eye(27).reshape(1, 27, 3, 3, 3), persistent=False)
        for k, weight in enumerate(self.weights):
            nn.init.normal_(weight, std=(2 / (27 * (1 + k))) ** 0.5)  # He et al. 2015, for ReLUs

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for k in range(len(self.dilations)):
            # Kept for the backward pass, the stacks of earlier maps would need memory quadratic in the depth.
            maps.append(checkpoint(self.grown, k, *maps, use_reentrant=False))
        return torch.as_tensor(self.last(torch.cat(maps, 1)))

    def grown(self, k: int, *maps: Tensor) -> Tensor:
        """Map k, from all earlier ones.

        Each of the kernel's 27 taps first mixes the maps, then takes its place in the neighbourhood: the same
        convolution, several times faster on a CPU than one from many maps to a single one.
        """
        mixed = F.conv3d(torch.cat(maps, 1), self.weights[k])
        return F.relu(Placed.apply(mixed, self.taps.to(mixed.dtype), self.dilations[k]) + self.biases[k])


class Placed(torch.autograd.Function):
    """The sum of 27 maps, each shifted to its place in a dilated 3^3 neighbourhood."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, taps: Tensor, dilation: int) -> Tensor:
        """(batch, 27, z, y, x) -> (batch, 1, z, y, x); `taps` is the unit matrix as a kernel."""
        ctx.dilation = dilation
        return F.conv3d(maps, taps, padding=dilation, dilation=dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """27 shifted copies, which cost a fraction of what a convolution backwards does."""
        (z, y, x), d = grad.shape[-3:], ctx.dilation
        wide = F.pad(grad, (d,) * 6)
        starts = itertools.product((2 * d, d, 0), repeat=3)
        return torch.cat([wide[..., a : a + z, b : b + y, c : c + x] for a, b, c in starts], 1), None, None
