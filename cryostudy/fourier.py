"""Frequencies, radii and shells of the discrete Fourier transform, for metrics, filters and wedge masks.

Frequencies are in cycles per voxel (Nyquist 0.5). The layout is that of ``torch.fft.rfftn`` (last axis
halved, n // 2 + 1 long) or, with ``rfft=False``, that of ``torch.fft.fftn``; zero frequency comes first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cryostudy.errors import InputError

Device = torch.device | str | None


def frequency_grid(shape: Sequence[int], *, rfft: bool = True, device: Device = None) -> tuple[Tensor, ...]:
    """Frequency along each axis of a box, as float32 tensors that broadcast against one another.

    shape: sides of the box in voxels, any number of axes. Returns one tensor an axis, in cycles per voxel,
    for example of shapes (z, 1, 1), (1, y, 1), (1, 1, x // 2 + 1). Raises InputError for a side below 1.
    """
    if len(shape) == 0 or min(shape) < 1:
        raise InputError(f"shape: {tuple(shape)} is no box; give sides of at least one voxel")
    grid = []
    for axis, n in enumerate(shape):
        halved = rfft and axis == len(shape) - 1
        frequency = (torch.fft.rfftfreq if halved else torch.fft.fftfreq)(n, device=device)
        grid.append(frequency.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
    return tuple(grid)


def radius(shape: Sequence[int], rfft: bool = True, *, device: Device = None) -> Tensor:
    """Length of the frequency vector at every Fourier voxel of a box of ``shape``, in cycles per voxel.

    The unit is the same along every axis, so that a sphere stays a sphere in a box with unequal sides.
    """
    squared = torch.zeros((), device=device)
    for frequency in frequency_grid(shape, rfft=rfft, device=device):
        squared = squared + frequency**2
    return squared.sqrt()


def multiplicity(shape: Sequence[int], *, device: Device = None) -> Tensor:
    """How often each voxel of the halved (rfftn) layout occurs in the full transform: 1 or 2, broadcastable.

    Sums over the halved layout equal sums over the full one when weighted by this (Friedel symmetry).
    """
    n = shape[-1]
    weight = torch.full((n // 2 + 1,), 2.0, device=device)
    weight[0] = 1
    if n % 2 == 0:
        weight[-1] = 1
    return weight.reshape([1] * (len(shape) - 1) + [-1])


def shell_index(shape: Sequence[int], *, rfft: bool = True, device: Device = None) -> tuple[Tensor, Tensor]:
    """Spherical shells of equal spatial frequency, for Fourier shell correlation, in boxes of any sides.

    There are ``n = min(shape) // 2`` shells of width 0.5 / n cycles per voxel; shell i is centred on
    (i + 1) * 0.5 / n, so that in a cubic box of even side it holds the voxels whose rounded radius is i + 1,
    and the first one also takes the lower frequencies that longer sides resolve. Zero frequency and the
    corners beyond Nyquist belong to no shell and carry the index n.

    Returns (index, frequency): int64 index of every Fourier voxel, and the mean frequency of each of the n
    shells in cycles per voxel. Raises InputError for a side below 2.
    """
    if len(shape) == 0 or min(shape) < 2:
        raise InputError(f"shape: {tuple(shape)} has no Fourier shells; give sides of at least two voxels")
    n = min(shape) // 2
    distance = radius(shape, rfft, device=device)
    index = (torch.round(distance * (2 * n)).long() - 1).clamp(0, n)
    index[(0,) * len(shape)] = n
    weight = multiplicity(shape, device=device) if rfft else torch.ones((), device=device)
    weight = weight.expand_as(distance).flatten().double()
    count = torch.bincount(index.flatten(), weight, n + 1)
    total = torch.bincount(index.flatten(), weight * distance.flatten(), n + 1)
    return index, (total / count)[:n].float()
