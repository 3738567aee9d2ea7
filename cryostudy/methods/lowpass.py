"""The low-pass filter: frequencies below a cutoff pass, with a smooth edge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cryostudy.filters import fourier_filter
from cryostudy.methods.calibrate import Filter


@dataclass(frozen=True)
class Lowpass(Filter):
    """Low-pass filter with the transfer function erfc((k - cutoff) / (sqrt 2 edge)) / 2 at the spatial frequency k.

    `cutoff`: cycles per voxel, where half of the amplitude passes (a resolution of voxel size / cutoff); None chooses
    it, see :class:`Filter`. `edge`: softness, cycles per voxel; a softer edge rings less.
    """

    name: ClassVar[str] = "lowpass"
    summary: ClassVar[str] = "low-pass filter with a smooth edge, cutoff chosen from the data"
    paper: ClassVar[str] = "cutoff: Batson and Royer 2019"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (24, 1)}, "laptop": {"sample": (64, 1)}}
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Filter.limits, "cutoff": (0, 1), "edge": (0.005, 1)}
    strength: ClassVar[str] = "cutoff"
    grid: ClassVar[tuple[float, ...]] = tuple(map(float, np.geomspace(0.025, 0.6, 13)))

    cutoff: float | None = None
    edge: float = 0.03

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The low-pass filtered volume (z, y, x)."""
        edge = math.sqrt(2) * self.edge
        return fourier_filter(volume, lambda k: torch.erfc((k - strength) / edge) / 2, self.reach(strength))

    def reach(self, strength: float) -> int:
        """Five standard deviations of the Gaussian by which the softness of the edge ends the ringing."""
        return math.ceil(5 / (2 * math.pi * self.edge))
