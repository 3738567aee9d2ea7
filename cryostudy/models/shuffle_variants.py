"""The volume-shuffle network with its parts exchanged, for ablations: block, sampling, levels, v, dilation and hole.

Here every layer works on the whole volume, channels last, (batch, D, H, W, C), and a dilated layer takes it apart
for itself. With v = dilation = hole = 3, "dca" blocks and "unshuffle" sampling it computes the same as
:class:`cryostudy.models.VolumeShuffleBSN`, from weights of the same names. Not every choice is blind, on purpose.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryostudy.errors import InputError
from cryostudy.models.volume_shuffle import DCABlock, volume_shuffle, volume_unshuffle

BLOCKS = ("dca", "dbsn")
SAMPLINGS = ("unshuffle", "ordinary", "pool", "pool_sublattice")


def apart(x: Tensor, d: int) -> Tensor:
    """(batch, D, H, W, C) -> (batch, d^3, D/d, H/d, W/d, C): the sub-lattices of the coordinates modulo d."""
    b, *sides, c = x.shape
    k, m, n = (side // d for side in sides)
    return x.reshape(b, k, d, m, d, n, d, c).permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, d**3, k, m, n, c)


def together(x: Tensor, d: int) -> Tensor:
    """The inverse of :func:`apart`."""
    b, _, k, m, n, c = x.shape
    x = x.reshape(b, d, d, d, k, m, n, c).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return x.reshape(b, k * d, m * d, n * d, c)


def pooled(x: Tensor, v: int) -> Tensor:
    """Largest of each v^3 voxels of (batch, D, H, W, C)."""
    return F.max_pool3d(x.movedim(-1, 1), v).movedim(1, -1)


def enlarged(x: Tensor, v: int) -> Tensor:
    """(batch, D, H, W, C) interpolated trilinearly to v times its sides."""
    return F.interpolate(x.movedim(-1, 1), scale_factor=v, mode="trilinear", align_corners=False).movedim(1, -1)


class HoledConv(nn.Conv3d):
    """First layer: a convolution of one channel whose central hole^3 weights are zero.

    The kernel is max(hole + 2, 2 dilation - 1) wide: the smallest that looks past the hole, and no smaller than that
    of D-BSN (Wu et al. 2020, `wu2020`). Weights at multiples of the dilation in all three directions are zero too, for
    through them a voxel would meet itself again behind the dilated layers.
    """

    mask: Tensor

    def __init__(self, channels: int, hole: int, dilation: int) -> None:
        reach = max(hole + 2, 2 * dilation - 1) // 2
        super().__init__(1, channels, 2 * reach + 1, padding=reach)
        offset = torch.arange(-reach, reach + 1)
        hidden = torch.stack(torch.meshgrid(offset, offset, offset, indexing="ij"))
        mask = (hidden.abs().amax(0) > hole // 2) & ((hidden % dilation).amax(0) > 0 if dilation > 1 else True)
        self.register_buffer("mask", mask.float()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(x, self.weight * self.mask, self.bias, padding=self.padding)


class DBSNBlock(nn.Module):
    """Block of D-BSN: x + W2(relu(W1 * x)) with a dilated convolution W1 of all channels; no attention, no gate.

    Works on (batch, sub-lattices, D, H, W, C) like :class:`cryostudy.models.volume_shuffle.DCABlock`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilated = nn.Conv3d(channels, channels, 3, padding=1)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dilated(x.flatten(0, 1).movedim(-1, 1)).movedim(1, -1).unflatten(0, x.shape[:2])
        return x + self.project(h.relu())


class ShuffleVariant(nn.Module):
    """(batch, 1, D, H, W) -> (batch, 1, D, H, W), any side (padded with zeros inside to a multiple of `multiple`).

    Args:
        channels, blocks, attention: as of :class:`cryostudy.models.VolumeShuffleBSN`.
        levels: times the volume is down-sampled, by v each; the paper has 2.
        v, dilation: of the down-sampling and of the convolutions (both 3 in the paper). hole: side of the cube that the
            first layer does not see, odd (3 in the paper).
        block: "dca", the paper's, or "dbsn".
        sampling: "unshuffle", the paper's volume-unshuffle and -shuffle; "ordinary", voxels of each v^3 block become
            channels; "pool", the largest of each v^3 block and trilinear interpolation back; "pool_sublattice", the
            same within each sub-lattice of the coordinates modulo the dilation.
    Raises:
        InputError: an unknown choice, or a hole that is even.
    Source: `liu2025`, Section 4 and Table 7. Blind where v equals the dilation and sampling does not mix sub-lattices.
    """

    def __init__(
        self, channels: int = 48, blocks: int = 2, attention: str = "global", *, levels: int = 2, v: int = 3,
        dilation: int = 3, hole: int = 3, block: str = "dca", sampling: str = "unshuffle",
    ) -> None:  # fmt: skip
        super().__init__()
        for value, known in ((attention, ("global", "sublattice", "none")), (block, BLOCKS), (sampling, SAMPLINGS)):
            if value not in known:
                raise InputError(f"{value!r} is unknown; use {', '.join(known)}")
        if hole % 2 == 0:
            raise InputError(f"hole {hole}: the voxel lies in its middle; give an odd number")
        self.levels, self.v, self.dilation, self.sampling = levels, v, dilation, sampling
        self.multiple = multiple(levels, v, dilation)
        ratio = v**3 if sampling in ("unshuffle", "ordinary") else 1  # the others keep the number of channels

        def stage(c: int) -> nn.Sequential:
            return nn.Sequential(*(DCABlock(c, attention) if block == "dca" else DBSNBlock(c) for _ in range(blocks)))

        widths = [channels * 2**k for k in range(levels + 1)]
        self.masked = HoledConv(channels, hole, dilation)
        for k, c in enumerate(widths[:-1]):
            self.add_module(f"encode{k}", stage(c))
            self.add_module(f"down{k}", nn.Linear(ratio * c, 2 * c))
        self.bottom = stage(widths[-1])
        for k, c in reversed(list(enumerate(widths[:-1]))):
            self.add_module(f"up{k}", nn.Linear(2 * c, ratio * c))
            self.add_module(f"decode{k}", stage(c))
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        sides = x.shape[2:]
        pad = [p for side in reversed(sides) for p in (0, -side % self.multiple)]
        h, kept = self.masked(F.pad(x, pad)).movedim(1, -1), []
        for k in range(self.levels):
            kept.append(self.dilated(f"encode{k}", h))
            h = self.down(kept[-1], self.get_submodule(f"down{k}"))
        h = self.dilated("bottom", h)
        for k in reversed(range(self.levels)):
            h = self.dilated(f"decode{k}", self.up(h, self.get_submodule(f"up{k}")) + kept[k])
        return torch.as_tensor(self.head(h).movedim(-1, 1)[..., : sides[0], : sides[1], : sides[2]])

    def dilated(self, stage: str, x: Tensor) -> Tensor:
        """A stage whose convolutions step by the dilation."""
        return together(self.get_submodule(stage)(apart(x, self.dilation)), self.dilation)

    def down(self, x: Tensor, mix: nn.Module) -> Tensor:
        """Sides divided by v, channels doubled."""
        if self.sampling == "pool":
            x = pooled(x, self.v)
        elif self.sampling == "pool_sublattice":
            parts = apart(x, self.dilation)
            small = pooled(parts.flatten(0, 1), self.v).unflatten(0, parts.shape[:2])
            x = together(small, self.dilation)
        elif self.sampling == "unshuffle":
            x = volume_unshuffle(x.movedim(-1, 1), self.v).movedim(1, -1)
        else:
            b, *sides, c = x.shape
            k, m, n = (side // self.v for side in sides)
            x = apart(x, self.v).permute(0, 2, 3, 4, 1, 5).reshape(b, k, m, n, self.v**3 * c)
        return torch.as_tensor(mix(x))

    def up(self, x: Tensor, mix: nn.Module) -> Tensor:
        """Sides multiplied by v, channels halved."""
        x = mix(x)
        if self.sampling == "pool":
            return enlarged(x, self.v)
        if self.sampling == "pool_sublattice":
            parts = apart(x, self.dilation)
            return together(enlarged(parts.flatten(0, 1), self.v).unflatten(0, parts.shape[:2]), self.dilation)
        if self.sampling == "unshuffle":
            return volume_shuffle(x.movedim(-1, 1), self.v).movedim(1, -1)
        b, k, m, n, c = x.shape
        return together(x.reshape(b, k, m, n, self.v**3, c // self.v**3).permute(0, 4, 1, 2, 3, 5), self.v)


def multiple(levels: int, v: int, dilation: int) -> int:
    """Sides must be multiples of this: every level keeps whole sub-lattices, of the dilation and of the unshuffle."""
    return math.lcm(v, dilation) * v**levels
