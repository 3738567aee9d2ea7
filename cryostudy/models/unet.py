"""A plain 3-D U-Net, the network of every method that brings none of its own."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.models.padding import extended, padded

FEW = 0.01  # share of voxels up to which the last block is computed around them alone


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

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """With `at`, bool (batch, 1, z, y, x): only what is estimated at its n true voxels, (n, outputs)."""
        if at is None:
            return padded(self.estimate, x, (self.multiple,) * 3)
        if len(self.up) and int(at.sum()) < FEW * at.numel():
            return self.estimate_at(extended(x, (self.multiple,) * 3), at)
        return self.forward(x).movedim(1, -1)[at[:, 0]]

    def estimate(self, x: Tensor) -> Tensor:
        """The network on sides that are multiples of `multiple`."""
        *kept, x = self.features(x)
        for part in kept:
            x = joined(self.up[0], part, x)
        return self.head(x.movedim(1, -1)).movedim(-1, 1)

    def estimate_at(self, x: Tensor, at: Tensor) -> Tensor:
        """The last block, half of the work, in 5^3 windows around some voxels alone: the same values there."""
        inside = windows(torch.ones_like(x[:, :1]), at, 1)  # elsewhere are the zeros around a volume
        kept, x = (windows(part, at, 2) for part in self.features(x))
        return self.head(joined(self.up[0], kept, x, inside).flatten(1))

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the last block works on: what the first one made, and what comes up from below."""
        kept = []
        for k, layer in enumerate(self.down):
            x = layer(x if k == 0 else F.avg_pool3d(x, 2))
            kept.append(x)
        for k in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            if k:
                x = joined(self.up[k], kept[k], x)
        return (kept[0], x) if len(self.up) else (x,)

    def head(self, x: Tensor) -> Tensor:
        """The last layer, (..., channels) -> (..., outputs); as a product with a matrix it is faster."""
        return F.linear(x, self.last.weight.flatten(1), self.last.bias)


def joined(layers: nn.Module, kept: Tensor, x: Tensor, inside: Tensor | None = None) -> Tensor:
    """A :func:`block` applied to two tensors joined along the channels, without joining them.

    The first convolution gives each part its share of the weights: the same sum, with no copy of either part, forward
    or backward. With `inside` nothing is padded, and it multiplies what the first convolution gives.
    """
    first, activation, second, _ = layers.children()
    assert isinstance(first, nn.Conv3d) and isinstance(second, nn.Conv3d)
    weight, n, padding = first.weight, kept.shape[1], 1 if inside is None else 0
    h = F.conv3d(kept, weight[:, :n], first.bias, padding=padding)
    h = activation(h.add_(F.conv3d(x, weight[:, n:], padding=padding)))
    h = h if inside is None else h * inside
    return torch.as_tensor(activation(F.conv3d(h, second.weight, second.bias, padding=padding)))


def windows(x: Tensor, at: Tensor, radius: int) -> Tensor:
    """What lies around voxels: (batch, channels, z, y, x) -> (n, channels, side, side, side), 0 beyond the borders.

    `at`: bool (batch, 1, z, y, x), true at n voxels, in whose order the windows of side `2 radius + 1` come.
    """
    reach = torch.arange(2 * radius + 1, device=x.device)
    batch, _, i, j, k = (index[:, None, None, None] for index in at.nonzero().T)
    spread = F.pad(x, [radius] * 6).movedim(1, -1)
    _, d, h, w, channels = spread.shape
    rows = ((batch * d + i + reach[:, None, None]) * h + j + reach[:, None]) * w + k + reach
    # Not by indexing, whose gradient several threads may sum in any order on a CPU.
    found = spread.reshape(-1, channels).gather(0, rows.reshape(-1, 1).expand(-1, channels))
    return found.unflatten(0, rows.shape).movedim(-1, 1)


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3^3 convolutions, each with a leaky ReLU."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
        nn.Conv3d(outputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
    )  # fmt: skip
