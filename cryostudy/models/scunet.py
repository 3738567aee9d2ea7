"""SCUNet, the Swin-Conv-UNet, in three dimensions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.models.padding import padded

WINDOW = 4  # voxels; a window of 4^3 has as many tokens as the paper's 8^2 in 2-D
HEAD = 16  # channels of an attention head, where there are as many


class SCUNet(nn.Module):
    """SCUNet of (batch, 1, z, y, x) -> the same, any sides (`zhang2023`; in 3-D as `jones2026` use it).

    A U-Net with `levels` halvings by strided convolution, `channels` (rounded up to even) doubled at each, skip
    connections that add, and two Swin-Conv blocks a stage, the second with shifted windows; the paper has four.
    Normalised channel by channel only, so that a voxel reaches no farther than convolutions and windows carry it.
    """

    def __init__(self, channels: int = 32, levels: int = 2) -> None:
        super().__init__()
        widths = [(channels + channels % 2) * 2**k for k in range(levels + 1)]
        self.multiple = WINDOW * 2**levels
        self.first = nn.Conv3d(1, widths[0], 3, padding=1)
        self.down = nn.ModuleList(stage(width) for width in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv3d(a, b, 2, 2) for a, b in itertools.pairwise(widths))
        self.body = stage(widths[-1])
        self.grow = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, 2) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(stage(width) for width in widths[:-1])
        self.last = nn.Conv3d(widths[0], 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return padded(self.estimate, x, (self.multiple,) * 3)

    def estimate(self, x: Tensor) -> Tensor:
        """The estimate where the sides are multiples of `multiple`."""
        x = self.first(x)
        kept = [x]
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            x = shrink(blocks(x))
            kept.append(x)
        x = self.body(x)
        for grow, blocks in zip(reversed(self.grow), reversed(self.up), strict=True):
            x = blocks(grow(x + kept.pop()))
        return self.last(x + kept.pop())


def stage(channels: int) -> nn.Sequential:
    """Two Swin-Conv blocks: plain windows, then shifted ones."""
    return nn.Sequential(SwinConv(channels, 0), SwinConv(channels, WINDOW // 2))


class SwinConv(nn.Module):
    """Half of the channels through a residual convolution, half through window attention, mixed, plus the input
    (`zhang2023`, Figure 2)."""

    def __init__(self, channels: int, shift: int) -> None:
        super().__init__()
        half = channels // 2
        self.split, self.merge = nn.Conv3d(channels, channels, 1), nn.Conv3d(channels, channels, 1)
        self.convolve = nn.Sequential(
            nn.Conv3d(half, half, 3, padding=1, bias=False), nn.ReLU(inplace=True),
            nn.Conv3d(half, half, 3, padding=1, bias=False),
        )  # fmt: skip
        self.attend = Attention(half, shift)
        self.norms = nn.ModuleList(nn.LayerNorm(half) for _ in range(2))
        self.perceive = nn.Sequential(nn.Linear(half, 4 * half), nn.GELU(), nn.Linear(4 * half, half))

    def forward(self, x: Tensor) -> Tensor:
        local, tokens = self.split(x).chunk(2, 1)
        local = local + self.convolve(local)
        tokens = tokens.movedim(1, -1)
        tokens = tokens + self.attend(self.norms[0](tokens))
        tokens = tokens + self.perceive(self.norms[1](tokens))
        return x + self.merge(torch.cat([local, tokens.movedim(-1, 1)], 1))


class Attention(nn.Module):
    """Attention among the voxels of a window, of tokens (batch, z, y, x, channels), with a learnt bias for each offset.

    With a `shift` the windows lie that many voxels farther along each axis; at the end of an axis they wrap
    around, and a mask keeps apart what does not belong together (Liu et al. 2021).
    """

    offsets: Tensor

    def __init__(self, channels: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.heads = channels // HEAD if channels % HEAD == 0 else 1
        self.project, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.bias = nn.Parameter(0.02 * torch.randn(self.heads, (2 * WINDOW - 1) ** 3))
        place = torch.cartesian_prod(*3 * [torch.arange(WINDOW)])
        apart = place[:, None] - place[None] + WINDOW - 1  # 0 to 2 WINDOW - 2 along each axis
        steps = torch.tensor([(2 * WINDOW - 1) ** 2, 2 * WINDOW - 1, 1])
        self.register_buffer("offsets", (apart * steps).sum(-1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        sides = tuple(x.shape[1:4])
        rolled = x.roll((-self.shift,) * 3, (1, 2, 3)) if self.shift else x
        windows = divided(rolled)  # (batch, windows, voxels, channels)
        q, k, v = self.project(windows).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias[:, self.offsets]
        if self.shift:
            bias = bias + self.barriers(sides, x.device)[:, None].to(bias.dtype)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        joined = united(self.out(found.transpose(2, 3).flatten(-2)), sides)
        return joined.roll((self.shift,) * 3, (1, 2, 3)) if self.shift else joined

    def barriers(self, sides: tuple[int, ...], device: torch.device) -> Tensor:
        """(windows, voxels, voxels): minus infinity between voxels that only the wrapping brought together."""
        part = torch.zeros((), device=device)
        for axis, side in enumerate(sides):
            wrapped = (torch.arange(side, device=device) >= side - self.shift).float()
            part = part + 2**axis * wrapped.reshape([-1 if a == axis else 1 for a in range(3)])
        region = divided(part[None, ..., None])[0, ..., 0]
        return torch.zeros((), device=device).masked_fill(region[:, :, None] != region[:, None], -torch.inf)


def divided(x: Tensor) -> Tensor:
    """(batch, z, y, x, channels) -> windows (batch, windows, voxels, channels)."""
    z, y, w = (side // WINDOW for side in x.shape[1:4])
    x = x.reshape(len(x), z, WINDOW, y, WINDOW, w, WINDOW, -1)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(len(x), z * y * w, WINDOW**3, -1)


def united(windows: Tensor, sides: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`divided`."""
    z, y, w = (side // WINDOW for side in sides)
    x = windows.reshape(len(windows), z, y, w, WINDOW, WINDOW, WINDOW, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(windows), *sides, -1)
