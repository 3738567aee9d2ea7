"""Blind spots made by the input: which voxels to hide from a network, and what to put there.

Volumes are (batch, 1, z, y, x); what is drawn at random is drawn from the generator given, on the CPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Lattice = tuple[slice, ...]


def stratified_mask(shape: tuple[int, ...], share: float, generator: Generator) -> Tensor:
    """True at one random voxel of every box of 1 / `share` voxels of a batch of volumes; at least at one in each.

    Args:
        shape: (batch, 1, z, y, x). share: of the voxels, in (0, 1].
    Source: stratified sampling of Noise2Void (Krull et al. 2019, Section 4.1), in 3-D.
    """
    batch, sides = shape[0], torch.tensor(shape[2:])
    edge = share ** (-1 / 3)  # of a box; boxes need not start at voxels, so that any share is met
    axes = [torch.arange(math.ceil(side / edge)) for side in shape[2:]]
    boxes = torch.cartesian_prod(*axes)
    points = ((boxes + torch.rand(batch, len(boxes), 3, generator=generator)) * edge).long()
    volume, box = (points < sides).all(2).nonzero().T  # boxes at the far ends are cut, and their points with them
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[volume, 0, *points[volume, box].T] = True
    for empty in (~mask.flatten(1).any(1)).nonzero().flatten():
        mask[empty].view(-1)[torch.randint(mask[empty].numel(), (), generator=generator)] = True
    return mask


def replace_by_neighbours(
    volume: Tensor, mask: Tensor, generator: Generator, *, radius: int = 2, median: bool = False
) -> Tensor:
    """The volume with every masked voxel replaced by a random one of the window around it, or by the window's median.

    The window has a side of `2 radius + 1` and ends where the volume ends. Its centre is left out, and so are the other
    masked voxels, which the source keeps: chosen for a neighbour, a hidden value would be back in sight. A voxel whose
    whole window is masked becomes 0.

    Source: Krull et al. 2019, Section 3.3 (uniform pixel selection); the median: Höck et al. 2022, Section 3.2.
    """
    reach = torch.arange(2 * radius + 1)
    padded = F.pad(volume.masked_fill(mask, torch.nan), [radius] * 6, value=torch.nan)
    batch, _, z, y, x = (index[:, None, None, None] for index in mask.nonzero().T)
    windows = padded[batch, 0, z + reach[:, None, None], y + reach[:, None], x + reach].flatten(1)
    if median:
        values = windows.nanmedian(1).values
    else:
        lots = torch.rand(windows.shape, generator=generator).masked_fill(windows.isnan(), -1)
        values = windows.gather(1, lots.argmax(1, keepdim=True))[:, 0]
    out = volume.clone()
    out[mask] = values.nan_to_num(0)
    return out


def lattices(spacing: int) -> Iterator[Lattice]:
    """The `spacing`^3 sub-lattices of a volume, as an index each: together they hold every voxel once."""
    for phase in itertools.product(range(spacing), repeat=3):
        yield (slice(None), slice(None), *(slice(start, None, spacing) for start in phase))


def donut_mean(volume: Tensor) -> Tensor:
    """Each voxel as the mean of its 26 neighbours, those at faces, edges and corners with weights 1, 1/2 and 1/4.

    Source: Batson and Royer 2019, Section 3, in 3-D; at the border of the volume, of the neighbours that there are.
    """
    line = torch.tensor([0.5, 1.0, 0.5], dtype=volume.dtype, device=volume.device)
    kernel = torch.einsum("i,j,k->ijk", line, line, line)[None, None]
    kernel[..., 1, 1, 1] = 0
    return F.conv3d(volume, kernel, padding=1) / F.conv3d(torch.ones_like(volume), kernel, padding=1)
