"""Learned methods whose network and loss the user may choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cryostudy.acquisition import Acquisition
from cryostudy.losses.objectives import OBJECTIVES, Objective
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import CHECKS, Learned
from cryostudy.methods.patches import crop, patch_positions
from cryostudy.models import ARCHITECTURES, build
from cryostudy.tomography import wedge_mask


@dataclass(frozen=True)
class Networked(Learned):
    """`architecture`: the network, "unet", the papers' default (64 channels and three levels: 27 M weights), "msdnet",
    "scunet" or "swinunetr". `channels` and `levels`: its width and depth as far as it has them.

    `objective`: what training makes small between estimate and target. "l2": the mean squared difference. "l1": the
    mean absolute difference. "fsc": one less their Fourier shell correlation.
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

    def filled(self, network: nn.Module, volume: Tensor, angles: Sequence[float]) -> Tensor:
        """A volume (z, y, x), on the network's device, whose missing wedge holds what the network makes of it.

        What the tilts (degrees) measured stays.
        """
        device, training = next(network.parameters()).device, network.training
        network.eval()
        made = self.tiles(partial(self.predict, network), volume.cpu().numpy(), device)
        network.train(training)
        given, filling = (torch.fft.rfftn(v.to(device)) for v in (volume, torch.from_numpy(made)))
        measured = wedge_mask(tuple(volume.shape), angles, rfft=True, device=device)
        return torch.fft.irfftn(torch.where(measured, given, filling), s=volume.shape)

    def watched(
        self, acquisition: Acquisition, noisy: Tensor, region: tuple[slice, ...], box: tuple[slice, ...], seed: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Crops of a held-out part `noisy` (z, y, x) and of the specimen itself, which only `cc_clean` needs.

        The part is the `box` of the `region` that is trained on. Of a recording without truth there are none.
        """
        truth = acquisition.truth if acquisition.truth is not None else acquisition.clean
        if truth is None:
            return []
        parts = (noisy, torch.tensor(np.asarray(truth[region][box], np.float32)))
        corners = patch_positions(tuple(noisy.shape), self.patch, limit=CHECKS, seed=seed)
        crops = ([crop(part, corner, self.patch)[None, None] for part in parts] for corner in corners)
        return [(first, second) for first, second in crops]


@dataclass(frozen=True)
class Collective(Networked):
    """A method that trains one network on one recording or on several together."""

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on one recording."""
        return self.fit_all([acquisition], seed=seed, device=device, folder=folder, progress=progress)

    def fit_all(
        self,
        acquisitions: Sequence[Acquisition],
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train one network on several recordings; arguments as of :meth:`fit`."""
        raise NotImplementedError
