"""Learned methods whose network and loss the user may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from cryostudy.losses.objectives import OBJECTIVES, Objective
from cryostudy.methods.learned import Learned
from cryostudy.models import ARCHITECTURES, build


@dataclass(frozen=True)
class Networked(Learned):
    """`architecture`: "unet", the papers' default (64 channels and three levels: 27 M weights), or another of
    :data:`cryostudy.models.ARCHITECTURES`; `channels` and `levels` are its width and depth as far as it has them.

    `objective`: "l2", "l1" or "fsc", see :mod:`cryostudy.losses.objectives`.
    """

    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "levels": 2, "patch": 24, "batch": 1, "steps": 20, "learning_rate": 3e-3,
                  "train_voxels": 2**18},
        "laptop": {"channels": 16, "levels": 2, "patch": 32, "batch": 2, "steps": 400, "learning_rate": 1.5e-3,
                   "train_voxels": 2**22},
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Learned.choices, "architecture": ARCHITECTURES, "objective": tuple(OBJECTIVES)
    }  # fmt: skip

    architecture: str = "unet"
    channels: int = 64
    levels: int = 3
    objective: str = "l2"

    @property
    def multiple(self) -> int:  # type: ignore[override]
        """Tiles start on the coarsest grid of the network, or where its windows do."""
        return {"msdnet": 1, "scunet": 4 * 2**self.levels, "swinunetr": 32}.get(self.architecture, 2**self.levels)

    @property
    def halo(self) -> int:  # type: ignore[override]
        """How far a voxel's value reaches in a U-Net: two convolutions a level, down and up, and the interpolation.

        The others reach further, or everywhere; tiles that overlap by more than this would be mostly overlap.
        """
        return 7 * 2 ** min(self.levels, 3) - 4

    def network(self) -> nn.Module:
        return build(self.architecture, self.channels, self.levels)

    @property
    def distance(self) -> Objective:
        """The objective as a function of (estimate, target, Fourier weight or None)."""
        return OBJECTIVES[self.objective]
