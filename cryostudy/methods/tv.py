"""Total-variation denoising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cryostudy.methods.calibrate import Filter


@dataclass(frozen=True)
class TotalVariation(Filter):
    """The u with the smallest |u - y|^2 / 2 + weight * TV(u) (Rudin, Osher and Fatemi 1992), by Chambolle's algorithm
    of 2004 as scikit-image has it.

    `weight`: in standard deviations of the volume; None chooses it, see :class:`Filter`. `iterations`: of the
    algorithm, fixed, since a stopping rule would see how much a tile holds.
    """

    name: ClassVar[str] = "tv"
    summary: ClassVar[str] = "total-variation denoising, weight chosen from the data"
    paper: ClassVar[str] = "Rudin et al. 1992, Chambolle 2004"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (24, 1)}, "laptop": {"sample": (48, 1)}}
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Filter.limits, "weight": (0, 1e3), "iterations": (1, 10**5)}
    strength: ClassVar[str] = "weight"
    grid: ClassVar[tuple[float, ...]] = tuple(map(float, np.geomspace(0.1, 10.0, 11)))

    weight: float | None = None
    iterations: int = 100

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The denoised volume (z, y, x)."""
        from skimage.restoration import denoise_tv_chambolle

        if strength == 0:
            return volume
        found = denoise_tv_chambolle(volume.cpu().numpy(), weight=strength, eps=0, max_num_iter=self.iterations)
        return torch.from_numpy(found).to(volume.device)

    def reach(self, strength: float) -> int:
        """A flat patch of the result is seldom wider."""
        return 24
