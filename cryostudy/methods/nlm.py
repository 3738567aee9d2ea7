"""Non-local means: the average of voxels whose surroundings look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cryostudy.methods.calibrate import Filter


@dataclass(frozen=True)
class NonLocalMeans(Filter):
    """Non-local means (Buades, Coll and Morel 2005) in scikit-image's fast version.

    `h`: the difference of two patches, root mean square and in standard deviations of the volume, at which they no
    longer count as alike; None chooses it, see :class:`Filter`. `patch`: side of the patches, `distance`: how far off
    they are looked for, voxels; the time goes with its cube.
    """

    name: ClassVar[str] = "nlm"
    summary: ClassVar[str] = "non-local means, strength chosen from the data"
    paper: ClassVar[str] = "Buades et al. 2005"
    cost: ClassVar[str] = "seconds; minutes for 256^3"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"sample": (16, 1), "distance": 2}, "laptop": {"sample": (40, 1), "distance": 3},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Filter.limits, "h": (1e-3, 1e3), "patch": (1, 51), "distance": (1, 51)
    }  # fmt: skip
    strength: ClassVar[str] = "h"
    grid: ClassVar[tuple[float, ...]] = tuple(map(float, np.geomspace(0.15, 2.0, 12)))

    h: float | None = None
    patch: int = 5
    distance: int = 5
    sample: tuple[int, int] = (64, 4)

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The denoised volume (z, y, x)."""
        from skimage.restoration import denoise_nl_means

        found = denoise_nl_means(
            volume.cpu().numpy(), h=strength, patch_size=self.patch, patch_distance=self.distance, fast_mode=True
        )
        return torch.from_numpy(found).to(volume.device)

    def reach(self, strength: float) -> int:
        """From a voxel to the far side of the farthest patch."""
        return self.distance + self.patch // 2
