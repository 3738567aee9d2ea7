"""The 3-D U-Net of Topaz-Denoise, from its description (`bepler2020`, Methods, which follows Lehtinen et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.models.padding import padded


class TopazUNet(nn.Module):
    """U-Net of (batch, 1, z, y, x) -> the same, any sides; unlike the usual one it is as wide at every depth.

    Encoder: a convolution of `first`^3, then one of 3^3 a level, all with `channels` maps, each followed by max pooling
    (`levels` times). Decoder: nearest-neighbour up-sampling, the encoder's maps of that depth beside it, two
    convolutions with twice the channels; the last level sees the volume itself and narrows in three convolutions.
    Leaky ReLUs with slope 0.1 but after the last one, no normalisation.
    """

    def __init__(self, channels: int = 48, levels: int = 5, first: int = 7) -> None:
        super().__init__()
        self.start = convolution(1, channels, first)
        self.down = nn.ModuleList(convolution(channels, channels) for _ in range(levels))
        self.bottom = convolution(channels, channels)
        deeper = [channels] + [2 * channels] * (levels - 1)
        skipped = [channels] * (levels - 1) + [1]
        widths = [(2 * channels, 2 * channels)] * (levels - 1) + [(4 * channels // 3, 2 * channels // 3)]
        self.up = nn.ModuleList(
            nn.Sequential(convolution(a + b, c), convolution(c, d))
            for a, b, (c, d) in zip(deeper, skipped, widths, strict=True)
        )
        self.last = nn.Conv3d(widths[-1][1], 1, 3, padding=1)
        self.multiple = 2**levels
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        return padded(self.evaluate, x, (self.multiple,) * 3)

    def evaluate(self, x: Tensor) -> Tensor:
        """The network on sides that are multiples of 2^levels."""
        kept, y = [x], self.start(x)
        for layer in self.down:
            y = F.max_pool3d(layer(y), 2)
            kept.append(y)
        y = self.bottom(kept.pop())
        for layer in self.up:
            y = layer(torch.cat([F.interpolate(y, scale_factor=2, mode="nearest"), kept.pop()], 1))
        return torch.as_tensor(self.last(y))


def convolution(inputs: int, outputs: int, side: int = 3) -> nn.Sequential:
    """A convolution that keeps the sides, and its leaky ReLU."""
    return nn.Sequential(nn.Conv3d(inputs, outputs, side, padding=side // 2), nn.LeakyReLU(0.1, inplace=True))
