"""What methods share that hide voxels of one noisy volume and let a network guess them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, nn

from cryostudy import parallel
from cryostudy.data import Acquisition
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.standardise import Standardised
from cryostudy.models import UNet
from cryostudy.training import Batch, Terms


@dataclass(frozen=True)
class Masked(Learned):
    """A U-Net trained to guess hidden voxels.

    `channels`: at full resolution. `levels`: halvings. A subclass says in :meth:`hide` which are, and what stands
    there.
    """

    channels: int = 32
    levels: int = 2

    def network(self) -> UNet:
        """An untrained network of this width."""
        return UNet(self.channels, self.levels)

    def hide(self, crops: Batch, generator: Generator) -> Batch:
        """Input with hidden voxels, the noisy patches themselves, and where they differ."""
        raise NotImplementedError

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

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """Mean squared error at the hidden voxels."""
        hidden, noisy, mask = batch
        error = network(hidden, at=mask)[:, 0] - noisy[mask]
        return {"total": error.square().mean() * parallel.weight(mask.sum())}
