"""DeepDeWedge (Wiedemann and Heckel 2024): denoise and fill the missing wedge, from two half-tomograms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from cryostudy.data import Acquisition
from cryostudy.methods.recorrupted import flip
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.wedge_filling import Part, WedgeFilling
from cryostudy.rotation import turned
from cryostudy.training import Batch


@dataclass(frozen=True)
class DeepDeWedge(WedgeFilling):
    """The masked loss of :class:`WedgeFilling` on two half-tomograms (`wiedemann2024`, Section 2.1).

    Either half is input or target, at random. The network restores the full tomogram (Step 3 of the paper).
    """

    name: ClassVar[str] = "deepdewedge"
    summary: ClassVar[str] = "denoises and fills the missing wedge, from two halves"
    paper: ClassVar[str] = "Wiedemann and Heckel 2024"
    cost: ClassVar[str] = "trains minutes"
    needs: ClassVar[tuple[str, ...]] = ("halves", "tilt_angles")

    def volumes(self, acquisition: Acquisition, whole: Standardised, region: tuple[slice, ...], seed: int) -> Tensor:
        assert acquisition.halves is not None
        return torch.stack([torch.from_numpy(replace(whole, volume=half)[region]) for half in acquisition.halves])

    def pair(self, part: Part, centres: Tensor, rotations: Tensor, generator: Generator) -> Batch:
        even, odd = turned(part.volumes, centres, rotations, self.patch).split(1, 1)
        return (even, odd) if flip(generator) else (odd, even)
