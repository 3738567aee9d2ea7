"""A plain 3-D U-Net, the network of every method that brings none of its own."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.models.padding import padded


class UNet(nn.Module):
    """U-Net of (batch, inputs, z, y, x) -> (batch, outputs, z, y, x), any sides.

    `levels` halvings by average pooling, `channels` doubled at each, two 3^3 convolutions a level, trilinear
    up-sampling, and skip connections (Çiçek et al. 2016). No normalisation: its statistics would carry every voxel's
    value to every other, and no network with them is blind.
    """

    def __init__(self, channels: int = 32, levels: int = 2, inputs: int = 1, outputs: int = 1) -> None:
        super().__init__()
        widths = [channels * 2**k for k in range(levels + 1)]
        self.down = nn.ModuleList(block(a, b) for a, b in zip([inputs, *widths], widths, strict=False))
        self.up = nn.ModuleList(block(a + b, a) for a, b in itertools.pairwise(widths))
        self.last = nn.Conv3d(channels, outputs, 1)
        self.multiple = 2**levels  # sides are repeated at their end up to a multiple of this
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a fifth faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        return padded(self.estimate, x, (self.multiple,) * 3)

    def estimate(self, x: Tensor) -> Tensor:
        """The network on sides that are multiples of `multiple`."""
        kept = []
        for k, layer in enumerate(self.down):
            x = layer(x if k == 0 else F.avg_pool3d(x, 2))
            kept.append(x)
        for k in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            first, *rest = self.up[k].children()
            assert isinstance(first, nn.Conv3d)
            x = joint(first, kept[k], x)
            for layer in rest:
                x = layer(x)
        # A 1^3 convolution is a product with a matrix, and in channels-last order the faster one.
        return F.linear(x.movedim(1, -1), self.last.weight.flatten(1), self.last.bias).movedim(-1, 1)


def joint(convolution: nn.Conv3d, kept: Tensor, x: Tensor) -> Tensor:
    """A 3^3 convolution of two tensors joined along the channels, without joining them.

    Each part gets its share of the weights: the same sum, with no copy of either part, forward or backward.
    """
    weight, n = convolution.weight, kept.shape[1]
    return F.conv3d(kept, weight[:, :n], convolution.bias, padding=1).add_(F.conv3d(x, weight[:, n:], padding=1))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3^3 convolutions, each with a leaky ReLU."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
        nn.Conv3d(outputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
    )  # fmt: skip
