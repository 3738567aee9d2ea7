"""The bilateral filter: a Gaussian filter that leaves out voxels of a different grey value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from cryostudy.filters import bilateral_filter
from cryostudy.methods.calibrate import Filter


@dataclass(frozen=True)
class Bilateral(Filter):
    """Bilateral filter (`tomasi1998`), in 3-D.

    `sigma`: its width in voxels; None chooses it, see :class:`Filter`. `contrast`: the difference of grey values, in
    standard deviations of the volume, that it keeps; in a tomogram, where noise is stronger than the specimen, a
    smaller one keeps the noise too.
    """

    name: ClassVar[str] = "bilateral"
    summary: ClassVar[str] = "bilateral filter in 3-D, width chosen from the data"
    paper: ClassVar[str] = "Tomasi and Manduchi 1998"
    cost: ClassVar[str] = "seconds; a minute for 256^3"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (16, 1)}, "laptop": {"sample": (40, 1)}}
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Filter.limits, "sigma": (0.1, 20), "contrast": (1e-3, 1e3)}
    strength: ClassVar[str] = "sigma"
    grid: ClassVar[tuple[float, ...]] = tuple(map(float, np.geomspace(0.5, 3.0, 8)))

    sigma: float | None = None
    contrast: float = 2.0
    sample: tuple[int, int] = (64, 4)

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The bilaterally filtered volume (z, y, x)."""
        return bilateral_filter(volume, strength, self.contrast)

    def reach(self, strength: float) -> int:
        """Half the side of the window."""
        return max(1, math.ceil(2 * strength))
