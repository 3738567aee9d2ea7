"""Blind spot and missing wedge together, from one tomogram: the combination that paper 003 names as unexplored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cryostudy import parallel
from cryostudy.data import Acquisition
from cryostudy.masking import replace_by_neighbours
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.wedge_filling import AXES, Part, WedgeFilling
from cryostudy.rotation import sharpened, turned
from cryostudy.training import Batch, Terms


@dataclass(frozen=True)
class BlindWedge(WedgeFilling):
    r"""Noise2Void's hidden voxels in DeepDeWedge's turned sub-tomograms with a second wedge.

    A `share` of the voxels is hidden in the tomogram itself, as Noise2Void hides them, before it is turned: so nothing
    of a hidden voxel is left in the input, whatever interpolation does. The network restores the turned sub-tomogram
    without the second wedge; its output, without the turned wedge, is then read at the places where the hidden voxels
    came to lie, and compared with them:

    .. math:: \sum_{p\ \mathrm{hidden}} \big( (F^{-1} M_\varphi F f(x))(R_\varphi p) - y(p) \big)^2

    Like every blind spot it takes the noise to be independent between voxels, which that of a reconstruction is not
    (chapter 16).

    `wedge_weight`: without effect, for voxels are compared, which belong to both wedges.
    """

    name: ClassVar[str] = "blind_wedge"
    summary: ClassVar[str] = "blind spots and wedge filling, from one tomogram"
    paper: ClassVar[str] = "here"
    cost: ClassVar[str] = "trains minutes"
    limits: ClassVar[dict[str, tuple[float, float]]] = {**WedgeFilling.limits, "share": (1e-5, 0.5)}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**WedgeFilling.choices, "objective": ("l2",)}

    share: float = 0.01

    def volumes(self, acquisition: Acquisition, whole: Standardised, region: tuple[slice, ...], seed: int) -> Tensor:
        return torch.from_numpy(whole[region])[None]

    def pair(self, part: Part, centres: Tensor, rotations: Tensor, generator: Generator) -> Batch:
        """Input, hidden values (1, k), their places in the turned cube (1, k, 3) as grid_sample counts, and a weight.

        The weight (1, k) is 0 for places outside the tomogram.
        """
        side, centre, rotation = self.patch, centres[0], rotations[0]
        sides = torch.tensor(part.raw.shape[1:])
        reach = math.ceil(side * 3**0.5 / 2) + 2
        start = (centre.round().long() - reach).clamp(min=0)
        stop = torch.minimum(centre.round().long() + reach, sides)
        near = part.raw[:, start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]].cpu()
        middle = (side - 1) / 2
        count = max(1, round(self.share * side**3))
        wanted = (2 * torch.rand(count, 3, generator=generator) - 1) * (middle - 1)  # of the turned cube, but its rim
        found = (centre + wanted @ rotation).round().long() - start
        limit = torch.tensor(near.shape[1:]) - 1
        inside = ((found >= 0) & (found <= limit)).all(1)
        found = torch.minimum(found.clamp(min=0), limit)
        mask = torch.zeros(1, *near.shape, dtype=torch.bool)
        mask[0, 0, *found.T] = True
        hidden = replace_by_neighbours(near[None], mask, generator)[0].to(part.raw.device)
        given = turned(sharpened(hidden), (centre - start)[None], rotations, side)
        places = ((found + start - centre) @ rotation.T / middle).flip(1)
        values = near[0, *found.T]
        return tuple(t.to(given.device) for t in (given, values[None], places[None], inside[None].float()))

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """Mean squared difference at the hidden voxels."""
        given, values, weight, places, inside = batch
        estimate = network(given).float()
        spectrum = torch.fft.rfftn(estimate, dim=AXES) * (weight > 0)
        seen = torch.fft.irfftn(spectrum, s=estimate.shape[-3:], dim=AXES)
        read = F.grid_sample(seen, places[:, :, None, None], align_corners=True)[:, 0, :, 0, 0]
        total = (inside * (read - values).square()).sum() / inside.sum().clamp(min=1)
        return {"total": total * parallel.weight(inside.sum())}
