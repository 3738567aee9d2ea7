"""FFDNet (Zhang et al. 2018), trained on simulated specimens and told the noise level it finds in the volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryostudy.methods.base import State
from cryostudy.methods.patches import box, patch_positions
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.supervised import Supervised
from cryostudy.models.ffdnet import FFDNet as Network
from cryostudy.training import Batch, Terms

SAMPLE = 64, 16  # side and number of the sub-volumes in which a volume's noise level is read


@dataclass(frozen=True)
class FFDNet(Supervised):
    """A chain of convolutions at half the sampling with the noise level as an input; `depth` and `channels` as in
    `zhang2018` for grey images.

    The level is the noise's strength at the highest frequencies (:func:`noise_deviation`): known in training, where it
    is that of noisy minus clean, and estimated in the volume to restore, where the signal is weak there. For white
    noise it is the standard deviation, for any other a fixed share of it. Patch, batch and steps are this study's.
    """

    name: ClassVar[str] = "ffdnet"
    summary: ClassVar[str] = "network told the noise level (FFDNet), trained on simulated specimens"
    paper: ClassVar[str] = "Zhang et al. 2018"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"depth": 4, "channels": 8, "patch": 16, "batch": 2, "steps": 10, "specimens": 3, "side": 32,
                  "learning_rate": 1e-2},
        "laptop": {"depth": 7, "channels": 32, "patch": 32, "batch": 2, "steps": 500, "specimens": 10, "side": 64,
                   "learning_rate": 4e-3},
    }  # fmt: skip
    tile: ClassVar[int] = 160
    halo: ClassVar[int] = 32
    multiple: ClassVar[int] = 2

    depth: int = 15
    channels: int = 64
    patch: int = 50
    batch: int = 32
    steps: int | None = 6000
    learning_rate: float = 1e-3

    def network(self) -> Network:
        """An untrained network of this depth and width."""
        return Network(self.depth, self.channels)

    def predict(self, network: nn.Module, noisy: Tensor) -> Tensor:
        return torch.as_tensor(network(noisy, noise_deviation(noisy)))

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """Mean squared error, the network being told the true level of the noise."""
        noisy, clean = batch
        return {"total": (network(noisy, noise_deviation(noisy - clean)) - clean).square().mean()}

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        network = self.trained(state, device)
        level = torch.tensor([volume_deviation(volume)], device=device)
        return self.tiles(lambda x: network(x, level), volume.array(), device, out, progress)


def noise_deviation(volume: Tensor) -> Tensor:
    """Standard deviation (batch,) of the noise at the highest frequencies of (batch, 1, z, y, x).

    The median absolute difference along all three diagonals of 2^3 voxels (the finest Haar wavelet), scaled so that it
    is the deviation for white Gaussian noise: Donoho and Johnstone 1994 (`donoho1994`). The median passes over the few
    places where structure is that sharp.
    """
    return details(volume).flatten(1).median(1).values / 0.6745


def details(volume: Tensor) -> Tensor:
    """Absolute finest diagonal Haar details of (..., z, y, x), of unit gain for white noise; an axis of one stays."""
    found = volume
    for axis in (-3, -2, -1):
        if volume.shape[axis] > 1:
            found = torch.diff(found, dim=axis) / 2**0.5
    return found.abs()


def volume_deviation(volume: Standardised) -> float:
    """:func:`noise_deviation` of a whole volume, its zero border left out, from sub-volumes of at most 64^3 voxels."""
    side, count = SAMPLE
    found: list[Tensor] = []
    for corner in patch_positions(volume.shape, side, limit=10**9, seed=0):
        where = box(corner, side)
        content = torch.from_numpy(volume.content(where))
        if content.any():
            inside = details(content.float()) == 0  # not across the rim
            values = details(torch.from_numpy(volume[where]))
            found.append(values[inside & content[tuple(slice(0, n) for n in values.shape)]])
        if len(found) == count:
            break
    return float(torch.cat(found).median() / 0.6745)
