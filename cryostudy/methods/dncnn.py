"""DnCNN (Zhang et al. 2017), trained on simulated specimens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cryostudy.methods.supervised import Supervised
from cryostudy.models.dncnn import DnCNN as Network


@dataclass(frozen=True)
class DnCNN(Supervised):
    """A chain of convolutions that predicts the noise; `depth` and `channels` as in `zhang2017` (DnCNN-S).

    Patches of 40 voxels are the paper's too; batch and steps are this study's, for cubes instead of squares, and so is
    Adam with a cosine decay where the paper lets SGD's rate fall a thousandfold.
    """

    name: ClassVar[str] = "dncnn"
    summary: ClassVar[str] = "residual network (DnCNN) trained on simulated specimens"
    paper: ClassVar[str] = "Zhang et al. 2017"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"depth": 4, "channels": 4, "patch": 16, "batch": 2, "steps": 10, "specimens": 3, "side": 32,
                  "learning_rate": 1e-2},
        "laptop": {"depth": 6, "channels": 16, "patch": 20, "batch": 2, "steps": 500, "specimens": 10, "side": 64,
                   "learning_rate": 1e-2},
    }  # fmt: skip
    halo: ClassVar[int] = 20

    depth: int = 17
    channels: int = 64
    patch: int = 40
    batch: int = 16
    steps: int | None = 4000
    learning_rate: float = 1e-3

    def network(self) -> Network:
        """An untrained network of this depth and width."""
        return Network(self.depth, self.channels)
