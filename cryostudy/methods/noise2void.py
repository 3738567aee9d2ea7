"""Noise2Void (Krull et al. 2019) in 3-D: a U-Net guesses voxels that were replaced by one of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator

from cryostudy.masking import replace_by_neighbours, stratified_mask
from cryostudy.methods.learned import Learned
from cryostudy.methods.masked import Masked
from cryostudy.training import Batch


@dataclass(frozen=True)
class Noise2Void(Masked):
    """Hide a few voxels, let the network guess them, restore with the plain network.

    `share` of the voxels is hidden in each patch, one at a random place of every box of 1 / `share` voxels; its value
    becomes that of a random voxel in the window of side `2 radius + 1` around it (`replacement="uniform"`), or the
    window's median ("median", of N2V2). The loss is the error at these voxels. A network trained so has little reason
    to look at the voxel it restores, but nothing keeps it from doing so: it is *not* blind when it restores.

    Defaults: share and window are those usual for volumes (one voxel in 8^3, 5^3); learning rate, decay, batch and
    width are of the paper's order, which is 2-D.
    """

    name: ClassVar[str] = "noise2void"
    summary: ClassVar[str] = "network that guesses voxels replaced by a neighbour"
    paper: ClassVar[str] = "Krull et al. 2019"
    cost: ClassVar[str] = "trains a minute"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "patch": 24, "batch": 1, "steps": 20, "learning_rate": 5e-3, "share": 0.03,
                  "train_voxels": 2**18},
        "laptop": {"channels": 16, "patch": 40, "batch": 1, "steps": 110, "learning_rate": 2e-3, "share": 0.03,
                   "train_voxels": 2**22},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Learned.limits, "share": (1e-5, 0.5), "radius": (1, 5)}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**Learned.choices, "replacement": ("uniform", "median")}

    share: float = 0.00198
    radius: int = 2
    replacement: str = "uniform"

    def hide(self, crops: Batch, generator: Generator) -> Batch:
        """Input with hidden voxels, the noisy patches themselves, and where they differ."""
        (noisy,) = crops
        mask = stratified_mask(tuple(noisy.shape), self.share, generator)
        median = self.replacement == "median"
        return replace_by_neighbours(noisy, mask, generator, radius=self.radius, median=median), noisy, mask
