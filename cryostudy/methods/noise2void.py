"""Noise2Void (Krull et al. 2019) in 3-D: a U-Net guesses voxels that were replaced by one of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, nn

from cryostudy.data import Acquisition
from cryostudy.masking import masked_error, replace_by_neighbours, stratified_mask
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.standardise import Standardised
from cryostudy.models import UNet
from cryostudy.training import Batch, Terms


@dataclass(frozen=True)
class Noise2Void(Learned):
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

    channels: int = 32
    levels: int = 2
    share: float = 0.00198
    radius: int = 2
    replacement: str = "uniform"

    def network(self) -> UNet:
        """An untrained network of this width."""
        return UNet(self.channels, self.levels)

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on the full volume; `halves` are not used."""
        self.check(acquisition)
        volume = Standardised.of(acquisition.full)
        noisy = torch.from_numpy(volume[self.region(volume.shape)])
        return self.learn(
            acquisition, (noisy,), self.loss, pairs=self.hide,
            seed=seed, device=device, folder=folder, progress=progress,
        )  # fmt: skip

    def hide(self, crops: Batch, generator: Generator) -> Batch:
        """Input with hidden voxels, the noisy patches themselves, and where they differ."""
        (noisy,) = crops
        mask = stratified_mask(tuple(noisy.shape), self.share, generator)
        median = self.replacement == "median"
        return replace_by_neighbours(noisy, mask, generator, radius=self.radius, median=median), noisy, mask

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """Mean squared error at the hidden voxels."""
        hidden, noisy, mask = batch
        return {"total": masked_error(network(hidden), noisy, mask)}
