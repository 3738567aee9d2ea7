"""Noise2Self (Batson and Royer 2019) in 3-D: a U-Net guesses one sub-lattice of voxels from all the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from cryostudy.masking import donut_mean, lattices
from cryostudy.methods.learned import Learned
from cryostudy.methods.masked import Masked
from cryostudy.training import Batch


@dataclass(frozen=True)
class Noise2Self(Masked):
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

    spacing: int = 3
    output: str = "blind"

    def hide(self, crops: Batch, generator: Generator) -> Batch:
        """Input with one sub-lattice hidden, the noisy patches themselves, and where they differ."""
        (noisy,) = crops
        every = list(lattices(self.spacing))
        chosen = every[int(torch.randint(len(every), (), generator=generator))]
        mask = torch.zeros(noisy.shape, dtype=torch.bool)
        mask[chosen] = True
        return torch.where(mask, donut_mean(noisy), noisy), noisy, mask

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
