"""DeepDeWedge's loss on recorrupted pairs: denoise and fill the missing wedge from one full-dose tomogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from cryostudy.data import Acquisition
from cryostudy.methods.recorrupted import flip, resolved, sampler
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.wedge_filling import Part, WedgeFilling
from cryostudy.rotation import random_centres, turned
from cryostudy.training import Batch


@dataclass(frozen=True)
class RecorruptedWedge(WedgeFilling):
    r"""The masked loss below on pairs :math:`(y + \alpha n, y - n / \alpha)` (chapter 21).

    y is the tomogram and n fresh noise with its spectrum. `alpha`, `source`, `level_scale` and `samples` are those of
    the method `recorrupted`. Noise is added before the pair is turned; turning is linear, so here both are turned alike
    and then added.
    """

    name: ClassVar[str] = "recorrupted_wedge"
    summary: ClassVar[str] = "denoises and fills the missing wedge, from one tomogram"
    paper: ClassVar[str] = "here"
    cost: ClassVar[str] = "trains minutes"
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **WedgeFilling.limits, "alpha": (0.05, 20), "level_scale": (0.01, 100), "samples": (1, 1000)
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **WedgeFilling.choices, "source": ("auto", "tilt_series", "halves", "volume", "background")
    }  # fmt: skip

    alpha: float = 1.0
    source: str = "auto"
    level_scale: float = 1.0
    samples: int = 4

    def volumes(self, acquisition: Acquisition, whole: Standardised, region: tuple[slice, ...], seed: int) -> Tensor:
        draw = sampler(acquisition, resolved(acquisition, self.source), region, whole.content(region))
        noises = [draw((seed, 3, k)) * (self.level_scale / whole.deviation) for k in range(self.samples)]
        return torch.stack([torch.from_numpy(whole[region]), *map(torch.from_numpy, noises)])

    def pair(self, part: Part, centres: Tensor, rotations: Tensor, generator: Generator) -> Batch:
        y = turned(part.volumes[:1], centres, rotations, self.patch)
        k = 1 + int(torch.randint(len(part.volumes) - 1, (), generator=generator))
        # Elsewhere in the noise, for more of it from few samples.
        centres = random_centres(part.volumes.shape[1:], len(centres), self.patch / 2, generator)
        n = turned(part.volumes[k : k + 1], centres, rotations, self.patch) * (-1 if flip(generator) else 1)
        return y + self.alpha * n, y - n / self.alpha
