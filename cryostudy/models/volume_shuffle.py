"""The J-invariant volume-shuffle network (Liu et al., WACV 2025; `liu2025` in the bibliography).

The paper describes a U-shaped network of 3-dilated convolutions and volume-unshuffles with v = 3. Both act on the 27
sub-lattices of the volume (the voxels that share their coordinates modulo 3) without ever mixing two of them: a
dilation of 3 is an ordinary convolution within a sub-lattice, and the volume-unshuffle is an ordinary unshuffle
within it. So this implementation takes the volume apart once, behind the first layer, and runs a plain U-Net over
27 small volumes. It computes the same function several times faster, and it makes the blindness plain to see: the
first layer gives every voxel features made of the *other* sub-lattices only (its kernel holds no offset whose three
components are all multiples of 3), and nothing behind it crosses between sub-lattices again. Global channel
attention is the one exception (`attention="global"`, as in the paper): it averages over all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.errors import InputError

V = 3  # the volume-unshuffle's v and the dilation; blindness needs the two to be equal
MULTIPLE = V**3  # two unshuffle levels behind the sub-lattices: sides are padded to multiples of this


def volume_unshuffle(x: Tensor, v: int) -> Tensor:
    """Move blocks of v^3 voxels from space into channels, keeping each v-block's neighbours.

    With i = v^2 a + v q + r (0 <= q, r < v) the voxel goes to position v a + r and to the base-v channel digit q, the
    same for j and k, and the channel becomes m' = C (v^2 q_i + v q_j + q_k) + m. Equations 2-6 of `liu2025`, corrected:
    as printed they do not give the shape that the paper states.

    Args:
        x: (batch, C, D, H, W), sides divisible by v^2.
    Returns:
        (batch, C v^3, D/v, H/v, W/v).
    Raises:
        InputError: a side is not divisible by v^2.
    """
    b, c, *sides = x.shape
    if any(side % v**2 for side in sides):
        raise InputError(f"volume_unshuffle: sides {tuple(sides)} must be divisible by v^2 = {v**2}; pad the volume")
    d, h, w = (side // v**2 for side in sides)
    x = x.reshape(b, c, d, v, v, h, v, v, w, v, v)  # b c | a q r | a q r | a q r
    x = x.permute(0, 3, 6, 9, 1, 2, 4, 5, 7, 8, 10)  # b | q q q | c | a r | a r | a r
    return x.reshape(b, c * v**3, d * v, h * v, w * v)


def volume_shuffle(x: Tensor, v: int) -> Tensor:
    """The inverse of :func:`volume_unshuffle`: (batch, C v^3, D, H, W) -> (batch, C, D v, H v, W v).

    Raises:
        InputError: channels not divisible by v^3 or sides not divisible by v.
    """
    b, c, *sides = x.shape
    if c % v**3 or any(side % v for side in sides):
        raise InputError(f"volume_shuffle: shape {tuple(x.shape)} needs channels divisible by {v**3}, sides by {v}")
    d, h, w = (side // v for side in sides)
    x = x.reshape(b, v, v, v, c // v**3, d, v, h, v, w, v)
    x = x.permute(0, 4, 5, 1, 6, 7, 2, 8, 9, 3, 10)
    return x.reshape(b, c // v**3, d * v**2, h * v**2, w * v**2)


class MaskedConv(nn.Conv3d):
    """5^3 convolution whose central 3^3 weights are zero ("sparse centrally masked convolution", `liu2025` 4.2)."""

    mask: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, 5, padding=2)
        mask = torch.ones(1, 1, 5, 5, 5)
        mask[..., 1:4, 1:4, 1:4] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Zeros beyond the border, never mirrored voxels: a reflection would show a voxel its own copy.
        return F.conv3d(x, self.weight * self.mask, self.bias, padding=2)


class DCABlock(nn.Module):
    """Dilated channel attention: x + W2(attend(gate(depthwise(W1(norm(x)))))), `liu2025` 4.2 (3).

    Works on (batch, 27, D, H, W, C), channels last, one entry of the second axis a sub-lattice; within a sub-lattice
    the paper's 3-dilated depth-wise convolution is an ordinary one.
    """

    def __init__(self, channels: int, attention: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)  # over channels, voxel by voxel: statistics over space would leak
        self.expand = nn.Linear(channels, 2 * channels)
        self.depthwise = nn.Conv3d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attend = nn.Linear(channels, channels) if attention != "none" else None
        if self.attend is not None:
            nn.init.ones_(self.attend.bias)  # start by letting everything through
        self.mean_over = (1, 2, 3, 4) if attention == "global" else (2, 3, 4)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.expand(self.norm(x))
        h = self.depthwise(h.flatten(0, 1).movedim(-1, 1)).movedim(1, -1).unflatten(0, x.shape[:2])
        a, b = h.chunk(2, dim=-1)
        h = a * b  # SimpleGate
        if self.attend is not None:
            h = h * self.attend(h.mean(self.mean_over, keepdim=True))
        return x + self.project(h)


class Down(nn.Linear):
    """Ordinary unshuffle by 3 within each sub-lattice, then a 1^3 convolution C -> 2 C."""

    def __init__(self, channels: int) -> None:
        super().__init__(V**3 * channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        *lead, d, h, w, c = x.shape
        x = x.reshape(*lead, d // V, V, h // V, V, w // V, V, c)
        x = x.movedim((-6, -4, -2), (-4, -3, -2)).flatten(-4)
        return super().forward(x)


class Up(nn.Linear):
    """1^3 convolution 2 C -> 27 C, then the ordinary shuffle by 3 within each sub-lattice."""

    def __init__(self, channels: int) -> None:
        super().__init__(2 * channels, V**3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        *lead, d, h, w, _ = x.shape
        x = super().forward(x).unflatten(-1, (V, V, V, -1)).movedim((-4, -3, -2), (-6, -4, -2))
        return x.reshape(*lead, d * V, h * V, w * V, x.shape[-1])


class VolumeShuffleBSN(nn.Module):
    """U-shaped blind-spot network: (batch, 1, D, H, W) -> (batch, 1, D, H, W), any side (padded to 27 inside).

    Args:
        channels: features at full resolution; doubled at each of the two levels below.
        blocks: DCA blocks in each of the five stages.
        attention: `"global"` averages over the whole patch as the paper does and leaks a little (chapter 02);
            `"sublattice"` averages over the voxel's own sub-lattice and `"none"` not at all: both are exactly blind.
    Source: `liu2025`, Section 4, with the unshuffle of :func:`volume_unshuffle`.
    """

    def __init__(self, channels: int = 48, blocks: int = 2, attention: str = "global") -> None:
        super().__init__()
        if attention not in ("global", "sublattice", "none"):
            raise InputError(f"attention {attention!r} is unknown; use global, sublattice or none")

        def stage(c: int) -> nn.Sequential:
            return nn.Sequential(*(DCABlock(c, attention) for _ in range(blocks)))

        c = channels
        self.masked = MaskedConv(c)
        self.encode0, self.down0 = stage(c), Down(c)
        self.encode1, self.down1 = stage(2 * c), Down(2 * c)
        self.bottom = stage(4 * c)
        self.up1, self.decode1 = Up(2 * c), stage(2 * c)
        self.up0, self.decode0 = Up(c), stage(c)
        self.head = nn.Sequential(nn.Linear(c, c), nn.GELU(), nn.Linear(c, 1))

    def forward(self, x: Tensor) -> Tensor:
        sides = x.shape[2:]
        pad = [p for side in reversed(sides) for p in (0, -side % MULTIPLE)]
        level0 = self.encode0(take_apart(self.masked(F.pad(x, pad))))
        level1 = self.encode1(self.down0(level0))
        h = self.bottom(self.down1(level1))
        h = self.decode1(self.up1(h) + level1)
        h = self.decode0(self.up0(h) + level0)
        return put_together(self.head(h))[..., : sides[0], : sides[1], : sides[2]]


def take_apart(x: Tensor) -> Tensor:
    """(batch, C, D, H, W) -> (batch, 27, D/3, H/3, W/3, C): the sub-lattices modulo 3, channels last."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // V, V, h // V, V, w // V, V).permute(0, 3, 5, 7, 2, 4, 6, 1)
    return x.reshape(b, V**3, d // V, h // V, w // V, c)


def put_together(x: Tensor) -> Tensor:
    """The inverse of :func:`take_apart`."""
    b, _, d, h, w, c = x.shape
    x = x.reshape(b, V, V, V, d, h, w, c).permute(0, 7, 4, 1, 5, 2, 6, 3)
    return x.reshape(b, c, d * V, h * V, w * V)
