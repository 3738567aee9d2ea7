"""Interpolation between two slices: motion estimated from coarse to fine, both warped to the middle, and fused."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Interpolator(nn.Module):
    r"""Network of two slices (batch, 2, h, w) -> the slice midway between them (batch, 1, h, w), any sides.

    Motion: from the coarsest of `levels` halvings to the first of them, one small network refines the flows
    :math:`v_1, v_2` that lead from the middle to either slice. It sees features of both, warped by the flows so far,
    and is the same at every level.
    Fusion: a 2-D U-Net sees both slices, plain and warped (:math:`w_1, w_2`), and gives a mask m and a residual r,

    .. math:: m\, w_1 + (1 - m)\, w_2 + r.

    Its last weights are zero at first: an untrained network gives the mean of the two slices. Written from the
    descriptions in `costafilho2025` and paper 003, in a plainer form: the flows start in the middle (backward warping),
    so that nothing has to be splatted.
    """

    def __init__(self, channels: int = 32, levels: int = 3) -> None:
        super().__init__()
        self.levels = levels
        self.features = block(1, channels)
        self.motion = nn.Sequential(block(2 * channels + 4, channels), last(channels, 4))
        widths = [channels * 2**k for k in range(levels + 1)]
        self.down = nn.ModuleList(block(a, b) for a, b in zip([8, *widths], widths, strict=False))
        self.up = nn.ModuleList(block(a + b, a) for a, b in itertools.pairwise(widths))
        self.fusion = last(channels, 2)
        self.multiple = 2**levels  # sides are repeated at their end up to a multiple of this

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % self.multiple, 0, -h % self.multiple), mode="replicate")
        flow = self.flow(x)
        first, second = warp(x[:, :1], flow[:, :2]), warp(x[:, 1:], flow[:, 2:])
        mask, residual = self.fuse(torch.cat([x, first, second, flow], 1)).split(1, 1)
        mask = mask.sigmoid()
        return (mask * first + (1 - mask) * second + residual)[..., :h, :w]

    def flow(self, x: Tensor) -> Tensor:
        """Flows (batch, 4, h, w) in pixels: (x, y) to where the first slice is looked up, then to the second."""
        pyramid = [F.avg_pool2d(x, 2)]
        for _ in range(self.levels - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        flow = torch.zeros_like(pyramid[-1]).repeat(1, 2, 1, 1)
        for level in reversed(pyramid):
            flow = doubled(flow) if flow.shape[-1] < level.shape[-1] else flow
            first, second = self.features(level[:, :1]), self.features(level[:, 1:])
            seen = [warp(first, flow[:, :2]), warp(second, flow[:, 2:]), flow]
            flow = flow + self.motion(torch.cat(seen, 1))
        return doubled(flow)

    def fuse(self, x: Tensor) -> Tensor:
        """Mask (before the sigmoid) and residual (batch, 2, h, w)."""
        kept = []
        for k, layer in enumerate(self.down):
            x = layer(x if k == 0 else F.avg_pool2d(x, 2))
            kept.append(x)
        for k in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up[k](torch.cat([kept[k], x], 1))
        return torch.as_tensor(self.fusion(x))


def doubled(flow: Tensor) -> Tensor:
    """A flow on a grid twice as fine, where the same way is twice as many pixels."""
    return 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """An image (batch, c, h, w) looked up at every pixel plus its flow (batch, 2, h, w), (x, y) in pixels.

    Bilinear; beyond the image's edge its border is repeated.
    """
    h, w = image.shape[-2:]
    precise = torch.promote_types(flow.dtype, torch.float32)  # in half precision a slice has too few places
    image, flow = image.to(precise), flow.to(precise)
    y, x = torch.meshgrid(
        torch.arange(h, dtype=flow.dtype, device=flow.device), torch.arange(w, dtype=flow.dtype, device=flow.device),
        indexing="ij",
    )  # fmt: skip
    # grid_sample counts from -1 at the first pixel's outer edge to 1 at the last one's.
    grid = torch.stack([(2 * (x + flow[:, 0]) + 1) / w - 1, (2 * (y + flow[:, 1]) + 1) / h - 1], -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3^2 convolutions, each with a leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
    )  # fmt: skip


def last(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3^2 convolution that gives zeros until it is trained."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
