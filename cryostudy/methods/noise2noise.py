"""Noise2Noise on two half-tomograms: what cryoCARE does with even and odd tilts or frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator

from cryostudy.data import Acquisition
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.recorrupted import Recorrupted, flip, loss
from cryostudy.methods.standardise import Standardised
from cryostudy.models import UNet
from cryostudy.training import Batch


@dataclass(frozen=True)
class Noise2Noise(Learned):
    """Predict one half-tomogram from the other (Lehtinen et al. 2018; `buchholz2019` for tomograms).

    Either half is input or target, at random. The network then restores the full tomogram, whose noise is weaker than
    what it was trained on; budget and network are those of `recorrupted`, for a comparison at equal steps.
    """

    name: ClassVar[str] = "noise2noise"
    summary: ClassVar[str] = "one half-tomogram predicted from the other"
    paper: ClassVar[str] = "Buchholz et al. 2019 (cryoCARE)"
    cost: ClassVar[str] = "trains a minute"
    needs: ClassVar[tuple[str, ...]] = ("halves",)
    scales: ClassVar[dict[str, dict[str, Any]]] = Recorrupted.scales

    channels: int = 64
    levels: int = 2

    def network(self) -> UNet:
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
        """Train on the two halves."""
        self.check(acquisition)
        assert acquisition.halves is not None
        full = Standardised.of(acquisition.full)
        region = self.region(full.shape)
        # On the full volume's scale, so that the network's output is on it too.
        even, odd = (torch.from_numpy(replace(full, volume=half)[region]) for half in acquisition.halves)
        return self.learn(
            acquisition, (torch.from_numpy(full[region]), even, odd), loss, pairs=either_way,
            seed=seed, device=device, folder=folder, progress=progress,
        )  # fmt: skip


def either_way(crops: Batch, generator: Generator) -> Batch:
    """The two halves in a random order."""
    _, even, odd = crops
    return (even, odd) if flip(generator) else (odd, even)
