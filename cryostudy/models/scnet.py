"""The network of SC-Net: a U-Net on a volume that is first up-sampled two times."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.models.padding import padded


class SCNet(nn.Module):
    """U-Net of (batch, 1, z, y, x) -> (batch, 1, z, y, x), any sides, with the up-sampling block in front.

    Nearest up-sampling to twice the sides, three encoder stages of stride 2 (`channels` wide, doubled at each), three
    decoder stages with nearest up-sampling and skip connections, the last of which joins the up-sampled input, and
    nearest down-sampling to the sides of the volume. Every convolution is 3^3, followed by batch normalisation and a
    leaky ReLU of slope 0.1. The input's sides are extended to a multiple of `multiple` by repeating the last voxel.

    The fine grid is never made: where a convolution of stride 2 follows a doubling, as in the first stage, or only
    every second voxel is kept, as after the last, it folds into one of 2^3 on the volume's own grid
    (:class:`FoldedConv`). So the up-sampling block adds no finer sampling, but two stages of full width at full
    resolution. `upsampling=False` leaves both resamplings out: the first stage then halves the volume itself.

    Source: `yang2021`, Section 4.2 and Figure 1. The paper gives neither the width nor the number of convolutions in a
    stage; one of stride 2 and one of stride 1 in the encoder, one in the decoder, are this study's choice.
    """

    def __init__(self, channels: int = 32, upsampling: bool = True) -> None:
        super().__init__()
        c = channels
        folded = FoldedConv if upsampling else None
        self.down = nn.ModuleList(
            [
                nn.Sequential(block(1, c, 2, folded), block(c, c)),
                nn.Sequential(block(c, 2 * c, 2), block(2 * c, 2 * c)),
                nn.Sequential(block(2 * c, 4 * c, 2), block(4 * c, 4 * c)),
            ]
        )
        self.up = nn.ModuleList([block(c + 1, c, 1, folded), block(3 * c, c), block(6 * c, 2 * c)])
        self.last = nn.Conv3d(c, 1, 1)
        self.upsampling = upsampling
        self.multiple = 4 if upsampling else 8

    def forward(self, x: Tensor) -> Tensor:
        return padded(self.estimate, x, (self.multiple,) * 3)

    def estimate(self, x: Tensor) -> Tensor:
        """The network on sides that are multiples of `multiple`."""
        kept = [x]
        for stage in self.down:
            kept.append(stage(kept[-1]))
        x = kept.pop()
        for k in reversed(range(len(self.up))):
            x = x if k == 0 and self.upsampling else double(x)
            x = self.up[k](torch.cat([kept.pop(), x], 1))
        return torch.as_tensor(self.last(x))


class FoldedConv(nn.Conv3d):
    """A 3^3 convolution of stride 2 on the doubled volume, computed on the volume itself.

    On the doubled grid the three taps of an axis, centred on an even voxel, fall on the volume's voxels i - 1, i, i.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        for axis in (2, 3, 4):
            before, at, after = weight.split(1, axis)
            weight = torch.cat([before, at + after], axis)
        return F.conv3d(F.pad(x, [1, 0] * 3), weight)


def double(x: Tensor) -> Tensor:
    """Twice the sides, every voxel repeated."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def block(inputs: int, outputs: int, stride: int = 1, folded: type[FoldedConv] | None = None) -> nn.Sequential:
    """One 3^3 convolution, batch normalisation, leaky ReLU."""
    conv = folded(inputs, outputs) if folded else nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(outputs), nn.LeakyReLU(0.1, inplace=True))
