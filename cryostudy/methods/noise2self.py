"""Noise2Self (Batson and Royer 2019) in 3-D: a U-Net guesses one sub-lattice of voxels from all the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.masking import donut_mean, lattices, masked_error
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.standardise import Standardised
from cryostudy.models import UNet
from cryostudy.training import Batch, Terms


@dataclass(frozen=True)
class Noise2Self(Learned):
    """Hide one sub-lattice at a time, let the network guess it, and restore each voxel while it is hidden.

    Every `spacing`-th voxel along each axis is hidden, from a random start at each step: its value becomes the mean of
    its neighbours, none of which is hidden with it. With `output="blind"`, restoring takes `spacing`^3 passes; in each
    one sub-lattice is hidden, and its guess kept: the result is exactly J-invariant. "plain" is one pass with nothing
    hidden, which is not; it is also what is watched during training.

    The paper divides an image into 25 sub-lattices; `spacing` 3 gives 27 of a volume.
    """

    name: ClassVar[str] = "noise2self"
    summary: ClassVar[str] = "network that guesses a sub-lattice of voxels from the others"
    paper: ClassVar[str] = "Batson and Royer 2019"
    cost: ClassVar[str] = "trains a minute"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "patch": 24, "batch": 1, "steps": 20, "learning_rate": 5e-3, "spacing": 2,
                  "train_voxels": 2**18},
        "laptop": {"channels": 16, "patch": 40, "batch": 1, "steps": 110, "learning_rate": 2e-3, "spacing": 2,
                   "train_voxels": 2**22},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Learned.limits, "spacing": (2, 8)}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**Learned.choices, "output": ("blind", "plain")}
    multiple: ClassVar[int] = 12  # of 2^levels and of spacings 2, 3 and 4: sub-lattices go on from tile to tile

    channels: int = 32
    levels: int = 2
    spacing: int = 3
    output: str = "blind"

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
        """Input with one sub-lattice hidden, the noisy patches themselves, and where they differ."""
        (noisy,) = crops
        every = list(lattices(self.spacing))
        chosen = every[int(torch.randint(len(every), (), generator=generator))]
        mask = torch.zeros(noisy.shape, dtype=torch.bool)
        mask[chosen] = True
        return torch.where(mask, donut_mean(noisy), noisy), noisy, mask

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """Mean squared error at the hidden voxels."""
        hidden, noisy, mask = batch
        return {"total": masked_error(network(hidden), noisy, mask)}

    def restore(self, network: nn.Module, noisy: Tensor) -> Tensor:
        """Each voxel as the network guesses it while hidden; one plain pass with `output="plain"`."""
        if self.output == "plain":
            return self.predict(network, noisy)
        guess, out = donut_mean(noisy), torch.empty_like(noisy)
        for lattice in lattices(self.spacing):
            hidden = noisy.clone()
            hidden[lattice] = guess[lattice]
            out[lattice] = self.predict(network, hidden)[lattice]
        return out
