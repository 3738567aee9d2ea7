"""Topaz-Denoise (Bepler et al. 2020) in 3-D: noise2noise with its network, or its authors' pretrained model."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cryostudy import io
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods.base import Denoiser, State
from cryostudy.methods.networked import Networked
from cryostudy.methods.noise2noise import Noise2Noise
from cryostudy.methods.standardise import Standardised
from cryostudy.models.topaz import TopazUNet

MODEL = "unet-3d"  # of `topaz denoise3d`: its default, trained on tomograms of about 10 Å per voxel


@dataclass(frozen=True)
class Topaz(Noise2Noise):
    """Noise2noise on halves with the U-Net of Topaz-Denoise (`bepler2020`); see :class:`TopazUNet` for its parts.

    `architecture`: no other. `channels` and `levels` are those of that network; optimiser, learning rate and budget are
    the study's.

    `laptop` and `smoke` have the budget of `noise2noise`.

    `pretrained`: nothing is trained; the model that its authors trained on many tomograms restores the full one. That
    needs no halves, but the package topaz-em (GPL), which is run as a program of its own.
    """

    name: ClassVar[str] = "topaz"
    summary: ClassVar[str] = "noise2noise with Topaz-Denoise's network; its pretrained model as an option"
    paper: ClassVar[str] = "Bepler et al. 2020"
    cost: ClassVar[str] = "trains minutes"
    multiple: ClassVar[int] = 32
    halo: ClassVar[int] = 40
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {**Networked.scales["smoke"], "levels": 2},
        "laptop": {**Networked.scales["laptop"], "levels": 3},
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**Noise2Noise.choices, "architecture": ("topaz",)}

    architecture: str = "topaz"
    channels: int = 48
    levels: int = 5
    patch: int = 96
    pretrained: bool = False

    def network(self) -> nn.Module:
        return TopazUNet(self.channels, self.levels)

    def check(self, acquisition: Acquisition) -> None:
        """Raises InputError when the acquisition lacks halves, or for a pretrained model the package is not there."""
        if not self.pretrained:
            super().check(acquisition)
        elif importlib.util.find_spec("topaz") is None:
            raise InputError("topaz: its pretrained model comes with another package; pip install topaz-em (GPL)")

    def inputs(self, acquisition: Acquisition) -> tuple[NDArray[Any], ...]:
        return (acquisition.full,) if self.pretrained else super().inputs(acquisition)

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on the two halves; a pretrained model has nothing to learn."""
        if self.pretrained:
            self.check(acquisition)
            return Denoiser(self, {})
        return super().fit(acquisition, seed=seed, device=device, folder=folder, progress=progress)

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        if not self.pretrained:
            return super().apply(state, volume, out, device, progress)
        restored = denoise3d(volume[:, :, :], device)
        if out is None:
            return restored
        out[...] = restored
        return out


def denoise3d(volume: NDArray[np.float32], device: str) -> NDArray[np.float32]:
    """A standardised volume (z, y, x) restored by `topaz denoise3d`, the command of topaz-em.

    Raises:
        InputError: the command fails; with the last line that it says.
    """
    card = "-1" if device == "cpu" else device.partition(":")[2] or "0"
    with TemporaryDirectory() as folder:
        source, results = Path(folder) / "tomogram.mrc", Path(folder) / "restored"
        results.mkdir()
        io.write_volume(source, volume, label="cryostudy, standardised")
        words = ["denoise3d", "--model", MODEL, "--device", card, "--output", str(results), str(source)]
        done = subprocess.run(
            [sys.executable, "-c", "from topaz.main import main; main()", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = sorted(results.glob("*.mrc"))
        if done.returncode or len(found) != 1:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise InputError(f"topaz denoise3d failed: {said[-1] if said else 'no output'}; check topaz-em")
        restored = io.read_volume(found[0]).data
        if restored.shape != volume.shape:
            raise InputError(f"topaz denoise3d gave shape {restored.shape} for {volume.shape}; check topaz-em")
        return np.array(restored, np.float32)
