"""BM4D: groups of alike cubes filtered together; the strongest of the filters where noise is white."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from cryostudy.bm4d import CUBE, REACH, STEP, bm4d
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.inference import tiled
from cryostudy.methods.base import Denoiser, Method, State
from cryostudy.methods.patches import box, central_box, patch_positions
from cryostudy.methods.standardise import Standardised
from cryostudy.noise import QUIETEST, SIDE, spectrum

SAMPLE = 64, 64  # side of the sub-volumes of a large volume that the noise is estimated from, and their number
REGION = 2**22  # voxels of the middle of the volume that the spectrum of the noise is estimated from


@dataclass(frozen=True)
class BM4D(Method):
    """BM4D for Gaussian noise, with the parameters of the paper's "normal" profile.

    `sigma`: standard deviation of the noise in grey values of the volume; None estimates it.
    `noise`: "white", as the paper has it: noise that is correlated between voxels is taken for signal (chapter 16).
    "coloured" lets the threshold of each coefficient follow the spectrum of the noise: that of half the difference of
    the halves where there are halves, else that of the volume's quietest parts. Halves must be of the volume.
    `implementation`: "open" is this study's; "authors" is the package `bm4d` of the paper's authors, where the user
    has installed it: its licence allows non-commercial use only. It runs on the CPU.
    """

    name: ClassVar[str] = "bm4d"
    summary: ClassVar[str] = "BM4D: alike cubes filtered in groups"
    paper: ClassVar[str] = "Maggioni et al. 2013"
    cost: ClassVar[str] = "minutes"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "implementation": ("open", "authors"), "noise": ("white", "coloured")
    }  # fmt: skip

    sigma: float | None = None
    noise: str = "white"
    implementation: str = "open"

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Find the noise relative to the deviation of the volume; random is only where a large one is sampled.

        Raises:
            InputError: the authors' package is wanted and absent or for coloured noise, the volume is constant, or the
                noise cannot be estimated from it.
        """
        self.check(acquisition)
        self.function(0.0)  # refuses here what cannot be applied later
        volume = Standardised.of(acquisition.full)
        given = None if self.sigma is None else self.sigma / volume.deviation
        if self.noise == "white":
            return Denoiser(self, {"sigma": torch.tensor(white_deviation(volume, seed) if given is None else given)})
        found = autocovariance(acquisition, volume)
        own = float(found[CUBE - 1, CUBE - 1, CUBE - 1]) ** 0.5
        sigma = own if given is None else given
        return Denoiser(self, {"sigma": torch.tensor(sigma), "covariance": found * (sigma / own) ** 2})

    def function(self, sigma: float, covariance: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """(1, 1, z, y, x) -> the same, filtered; the covariance (7, 7, 7), where given, takes the place of sigma."""
        if self.implementation == "open":
            noise = sigma if covariance is None else covariance
            return lambda x: bm4d(x[0, 0], noise)[None, None]
        if self.noise == "coloured":
            raise InputError("bm4d: the authors' implementation takes white noise only here; use implementation=open")
        try:
            peer = importlib.import_module("bm4d")
        except ImportError:
            raise InputError(
                "bm4d: the authors' implementation is not installed; pip install bm4d (non-commercial licence), "
                "or leave implementation at open"
            ) from None
        if sigma == 0:
            return lambda x: x
        return lambda x: torch.as_tensor(np.float32(peer.bm4d(x[0, 0].cpu().double().numpy(), sigma)))[None, None]

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        return tiled(
            self.function(float(state["sigma"]), state.get("covariance")), volume.array(),
            out=out, tile=96, halo=REACH, blend=REACH, multiple=STEP, device=device, progress=progress,
        )  # fmt: skip


def autocovariance(acquisition: Acquisition, volume: Standardised) -> Tensor:
    """Autocovariance (7, 7, 7) of the noise of a recording's volume, standardised; zero lag at the centre.

    Raises:
        InputError: there are no halves, and a zero border would pass for the quietest part of the volume.
    """
    if acquisition.halves is not None:
        even, odd = (half[central_box(half.shape, REGION)].astype(np.float32) for half in acquisition.halves)
        power = spectrum((even - odd) / (2 * volume.deviation))
    elif volume.bits is not None:
        raise InputError("bm4d: coloured noise of a volume with a zero border is estimated from halves only; give them")
    else:
        power = spectrum(volume[central_box(volume.shape, REGION)], quietest=QUIETEST)
    sides = tuple(min(SIDE, n) for n in volume.shape)
    around = torch.fft.irfftn(power, s=sides, dim=(0, 1, 2)).roll((CUBE - 1,) * 3, (0, 1, 2))
    return around[(slice(2 * CUBE - 1),) * 3].clone()


def white_deviation(volume: Standardised, seed: int = 0) -> float:
    """Standard deviation of white noise, from the median absolute value of the diagonal Haar coefficients.

    They are the finest sub-band: differences along all three axes, in which a specimen has next to nothing. Scaled as
    Donoho and Johnstone 1994 do; zero borders are left out. Within 1 % on the study's specimens up to SNR 4.

    Raises:
        InputError: the volume has no 2^3 voxels of content.
    """
    signs = 1.0 - 2 * (np.indices((2, 2, 2)).sum(0) % 2)
    side, count = SAMPLE
    found: list[NDArray[np.float64]] = []
    for corner in patch_positions(volume.shape, side, limit=10**9, seed=seed):
        where = box(corner, side)
        if len(found) == count or min(volume.shape) < 2:
            break
        values, content = (
            sliding_window_view(v, (2, 2, 2))[::2, ::2, ::2] for v in (volume[where], volume.content(where))
        )
        detail = (values * signs).sum((3, 4, 5))[content.all((3, 4, 5))]
        if len(detail):
            found.append(np.abs(detail) / np.sqrt(8))
    if not found:
        raise InputError("bm4d: no 2^3 voxels to estimate the noise from; give sigma")
    return float(np.median(np.concatenate(found)) / 0.6745)
