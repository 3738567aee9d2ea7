"""Where in a tomogram there is something: places worth drawing sub-tomograms from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from cryostudy.filters import gaussian_filter

SIGMA = 2.0  # voxels; of the neighbourhood that a density or a deviation is taken over


def content_mask(volume: Tensor, density_percentage: float, std_percentage: float) -> Tensor:
    """True (z, y, x) where smoothed density and local deviation are both among the largest of a volume (z, y, x).

    Density counts by its distance from the median, so that dark and bright specimens are found alike.

    Args:
        density_percentage, std_percentage: share of the voxels, in percent, that each of the two tests lets through.
    Source: the masks of IsoNet (`liu2022`), which paper 004, Appendix C.1 uses too; the neighbourhood is a Gaussian.
    """
    smooth = gaussian_filter(volume, SIGMA)
    density = (smooth - smooth.median()).abs()
    variance = gaussian_filter(volume.square(), SIGMA) - smooth.square()
    mask = torch.ones_like(volume, dtype=torch.bool)
    for values, share in ((density, density_percentage), (variance, std_percentage)):
        mask &= values >= float(np.percentile(values.cpu().numpy(), 100 - share))  # torch's own has a limit of size
    return mask


class Centres:
    """Random points in the content of a volume, kept off its borders.

    `margin`: voxels from the borders; where the volume is thinner the points lie in its middle. Where the mask is empty
    after that, they come from everywhere inside.
    """

    def __init__(self, mask: Tensor, margin: float) -> None:
        inside = torch.zeros_like(mask)
        edges = [min(round(margin), (side - 1) // 2) for side in mask.shape]
        inside[tuple(slice(edge, side - edge) for edge, side in zip(edges, mask.shape, strict=True))] = True
        chosen = mask & inside
        self.shape = tuple(mask.shape)
        self.voxels = (chosen if chosen.any() else inside).flatten().nonzero().flatten().cpu()

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Points (count, 3), voxels (z, y, x), anywhere within the chosen voxels."""
        chosen = self.voxels[torch.randint(len(self.voxels), (count,), generator=generator)]
        points = torch.stack(torch.unravel_index(chosen, self.shape), 1)
        return points + torch.rand(count, 3, generator=generator) - 0.5
