"""Wiener-like deconvolution: every frequency weighted by how much signal is expected there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.filters import fourier_filter
from cryostudy.methods.base import Denoiser
from cryostudy.methods.calibrate import Filter
from cryostudy.tomography.ctf import ctf_radial, electron_wavelength


@dataclass(frozen=True)
class Wiener(Filter):
    r"""Wiener filter whose signal-to-noise ratio falls off exponentially (Tegunov and Cramer 2019, Methods; also the
    deconvolution step of IsoNet, Liu et al. 2022),

    .. math:: W(k) = c(k) / (c(k)^2 + 1 / S(k)), \quad S(k) = \mathrm{snr}\, e^{-\mathrm{falloff}\, k} .

    Without `defocus` the transfer c is 1, and W a low-pass filter. With it, c is the CTF of the tomogram as a whole,
    |CTF| where its images were phase-flipped (`phase_flipped`), and W also undoes it; frequencies below `highpass`
    (cycles per voxel), where the CTF leaves nothing to amplify, are then faded out.

    `falloff`: voxels; None chooses it, as said below, judging c W, the estimate of the noiseless tomogram as it was
    recorded. `snr`: at zero frequency. `defocus`: Å, underfocus positive. `voltage`: kV; `cs`: mm;
    `amplitude_contrast`: share of the amplitudes, 0 to 1. `pixel`: Å, by default the recording's.
    """

    name: ClassVar[str] = "wiener"
    summary: ClassVar[str] = "Wiener-like deconvolution, with the CTF where defocus is given"
    paper: ClassVar[str] = "Tegunov and Cramer 2019, Liu et al. 2022"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (24, 1)}, "laptop": {"sample": (64, 1)}}
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Filter.limits, "falloff": (0, 1e4), "snr": (1e-3, 1e9), "defocus": (-1e6, 1e6), "highpass": (0, 0.5),
        "voltage": (1, 1e4), "cs": (0, 100), "amplitude_contrast": (0, 1), "pixel": (0, 1e4),
    }  # fmt: skip
    strength: ClassVar[str] = "falloff"
    grid: ClassVar[tuple[float, ...]] = tuple(map(float, np.geomspace(15, 200, 10)))

    falloff: float | None = None
    snr: float = 1000.0
    defocus: float | None = None
    phase_flipped: bool = True
    highpass: float = 0.02
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.07
    pixel: float = 0.0

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Choose the fall-off.

        Raises:
            InputError: a defocus without a voxel size.
        """
        pixel = self.pixel or acquisition.voxel_size
        if self.defocus is not None and not pixel:
            raise InputError(
                f"wiener: a defocus needs a voxel size, which {acquisition.name} does not state; give pixel"
            )
        ready = replace(self, pixel=pixel)
        return super(Wiener, ready).fit(acquisition, seed=seed, device=device, folder=folder, progress=progress)

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The deconvolved volume (z, y, x)."""
        return fourier_filter(volume, lambda k: self.transfer(k, strength)[1], self.reach(strength))

    def denoised(self, volume: Tensor, strength: float) -> Tensor:
        """The volume (z, y, x) without its noise but with its CTF."""

        def both(k: Tensor) -> Tensor:
            c, w = self.transfer(k, strength)
            return c * w

        return fourier_filter(volume, both, self.reach(strength))

    def transfer(self, frequency: Tensor, falloff: float) -> tuple[Tensor, Tensor]:
        """c and W at frequencies in cycles per voxel, of any shape."""
        noise = torch.exp((falloff * frequency).clamp(max=80)) / self.snr
        if self.defocus is None:
            return torch.ones_like(noise), 1 / (1 + noise)
        c = ctf_radial(
            frequency / self.pixel, self.defocus,
            voltage=self.voltage, cs=self.cs, amplitude_contrast=self.amplitude_contrast,
        )  # fmt: skip
        c = c.abs() if self.phase_flipped else c
        rise = (frequency / max(self.highpass, 1e-6)).clamp(max=1)
        return c, c / (c.square() + noise) * (1 - torch.cos(math.pi * rise)) / 2

    def reach(self, strength: float) -> int:
        """Where the filter's response, and with it what the CTF spreads, has died off to a thousandth."""
        reach = strength * math.log(1e3) / (2 * math.pi**2)
        if self.defocus is not None:
            # As far as the CTF moves the frequency at which half of the amplitude passes, and a period of the fade.
            half = math.log(max(self.snr, 2)) / max(strength, 1) / self.pixel
            reach += abs(self.defocus) * electron_wavelength(self.voltage) * half / self.pixel
            reach = max(reach, 1 / max(self.highpass, 0.02))
        return math.ceil(reach) + 1
