"""The Gaussian filter: the baseline every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from cryostudy.data import Acquisition
from cryostudy.filters import TRUNCATE, gaussian_filter
from cryostudy.inference import tiled
from cryostudy.methods.base import Denoiser, Method, Standardise, State
from cryostudy.methods.patches import crop, patch_positions

SIGMAS = tuple(float(s) for s in np.geomspace(0.4, 4.0, 13))


@dataclass(frozen=True)
class Gaussian(Method):
    """Gaussian filter whose width is chosen without the truth.

    `sigma`: voxels; None chooses the one whose prediction of unseen data is best: with halves, the filtered even half
    against the odd half; without, each voxel predicted from its neighbours alone (J-invariant calibration, Batson and
    Royer 2019, Section 3), which takes noise that is correlated between voxels for signal (ERRATA 5).
    `sample`: side of the sub-volumes, and their number, on which the width is chosen.
    """

    name: ClassVar[str] = "gaussian"
    summary: ClassVar[str] = "Gaussian filter, width chosen from the data"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (48, 2)}}

    sigma: float | None = None
    sample: tuple[int, int] = (96, 8)

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Choose sigma; nothing is random but which sub-volumes of a large volume are looked at."""
        self.check(acquisition)
        sigma = self.sigma if self.sigma is not None else calibrate(acquisition, self.sample, seed)
        return Denoiser(self, {"sigma": torch.tensor(sigma)})

    def apply(
        self,
        state: State,
        volume: NDArray[Any],
        normalise: Standardise,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        sigma = float(state["sigma"])
        halo = int(np.ceil(TRUNCATE * sigma))
        return tiled(
            lambda x: gaussian_filter(normalise(x), sigma),
            volume,
            out=out,
            tile=128 + 2 * halo,
            halo=halo,
            blend=0,
            device=device,
            progress=progress,
        )


def calibrate(acquisition: Acquisition, sample: tuple[int, int], seed: int) -> float:
    """The sigma of `SIGMAS` (voxels) with the smallest error on data the filter did not see."""
    patch, count = sample
    positions = patch_positions(acquisition.full.shape, patch, limit=count, seed=seed)
    errors = np.zeros(len(SIGMAS))
    for corner in positions:
        if acquisition.halves:
            even, odd = (as_float(crop(half, corner, patch)) for half in acquisition.halves)
            pairs, blind = [(even, odd), (odd, even)], False
        else:
            full = as_float(crop(acquisition.full, corner, patch))
            pairs, blind = [(full, full)], True
        for k, sigma in enumerate(SIGMAS):
            for x, y in pairs:
                errors[k] += (gaussian_filter(x, sigma, omit_centre=blind) - y).square().mean().item()
    return SIGMAS[int(errors.argmin())]


def as_float(volume: NDArray[Any]) -> torch.Tensor:
    """A float32 copy as a tensor."""
    return torch.from_numpy(np.array(volume, np.float32))
