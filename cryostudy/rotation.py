"""Rotated sub-tomograms, sampled straight from the volume on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from cryostudy.fourier import frequency_grid


def random_rotations(count: int, generator: Generator) -> Tensor:
    """Rotation matrices (count, 3, 3), float32, uniform on the group of rotations.

    A unit quaternion uniform on the sphere in four dimensions gives such a rotation (Shoemake 1992).
    """
    w, x, y, z = F.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).reshape(count, 3, 3)


def about_tilt_axis(degrees: Tensor) -> Tensor:
    """Matrices (n, 3, 3) that turn (z, y, x) vectors about y by these angles (n,)."""
    angle = torch.deg2rad(degrees)
    c, s, o = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack([c, o, -s, o, o + 1, o, s, o, c], 1).reshape(-1, 3, 3)


def sharpened(volume: Tensor) -> Tensor:
    """A volume (..., z, y, x) whose power spectrum linear interpolation at random places brings back to what it was.

    Interpolation between neighbours at a random fraction keeps (2 + cos w) / 3 of the power at the frequency w along
    each axis. Without this the noise of rotated sub-tomograms would be smoother, by half of its variance or more, than
    that of the volume which is restored in the end.
    """
    spectrum = torch.fft.rfftn(volume, dim=(-3, -2, -1))
    for frequency in frequency_grid(tuple(volume.shape[-3:]), device=volume.device):
        spectrum = spectrum * ((2 + torch.cos(2 * torch.pi * frequency)) / 3).rsqrt()
    return torch.fft.irfftn(spectrum, s=volume.shape[-3:], dim=(-3, -2, -1))


def turned(volume: Tensor, centres: Tensor, rotations: Tensor, side: int) -> Tensor:
    """Cubes around points of a volume, turned about them: (n, channels, side, side, side).

    What lies at `c + v` in the volume lies at `R v` from the middle of the cube, so that its missing wedge is
    `wedge_mask(..., rotation=R)`. Interpolated linearly; beyond its borders the volume is mirrored, which keeps the
    wedge of a symmetric tilt range.

    Args:
        volume: (channels, z, y, x), all turned alike. centres: (n, 3), voxels (z, y, x).
        rotations: (n, 3, 3) matrices for (z, y, x) vectors.
    """
    size = torch.tensor(volume.shape[-3:], dtype=torch.float64)
    axis = torch.arange(side, dtype=torch.float64)[:, None] - (side - 1) / 2
    # grid_sample counts x first, from -1 to 1. Row vectors times the matrix: this is the inverse rotation.
    starts = (2 * centres.cpu() / (size - 1) - 1).flip(-1)
    steps = (2 * rotations.cpu() / (size - 1)).flip(-1)
    cubes = []
    for start, step in zip(starts, steps, strict=True):
        z, y, x = (axis * row for row in step)
        plane = ((start + z)[:, None] + y).float().to(volume.device)  # rounded late: places err by 1e-5 voxels
        grid = plane[:, :, None] + x.float().to(volume.device)
        inside = bool((start.abs() + step.abs().sum(0) * (side - 1) / 2 <= 1).all())
        padding = "border" if inside else "reflection"  # the same for a cube inside, but faster on a CPU
        cubes.append(F.grid_sample(volume[None], grid[None], padding_mode=padding, align_corners=True)[0])
    return torch.stack(cubes)


def random_centres(shape: Sequence[int], count: int, margin: float, generator: Generator) -> Tensor:
    """Points (count, 3) at least `margin` voxels from the borders of a box, or in its middle where it is thinner."""
    size = torch.tensor(shape, dtype=torch.float32) - 1
    edge = torch.minimum(torch.full((3,), float(margin)), size / 2)
    return edge + torch.rand(count, 3, generator=generator) * (size - 2 * edge)
