"""The Gaussian filter: the baseline every other method has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from cryostudy.filters import TRUNCATE, gaussian_filter
from cryostudy.methods.calibrate import Filter


@dataclass(frozen=True)
class Gaussian(Filter):
    """Gaussian filter. `sigma`: its width in voxels; None chooses it, see :class:`Filter`."""

    name: ClassVar[str] = "gaussian"
    summary: ClassVar[str] = "Gaussian filter, width chosen from the data"
    paper: ClassVar[str] = "width: Batson and Royer 2019"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (48, 2)}}
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Filter.limits, "sigma": (0, 50)}
    strength: ClassVar[str] = "sigma"
    grid: ClassVar[tuple[float, ...]] = tuple(map(float, np.geomspace(0.4, 4.0, 13)))

    sigma: float | None = None

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The volume (z, y, x) convolved with a Gaussian."""
        return gaussian_filter(volume, strength)

    def reach(self, strength: float) -> int:
        """Half the length of the kernel."""
        return math.ceil(TRUNCATE * strength)
