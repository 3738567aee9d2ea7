"""The Gaussian filter: the baseline every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from cryostudy.data import Acquisition
from cryostudy.filters import TRUNCATE, gaussian_filter
from cryostudy.inference import tiled
from cryostudy.methods.base import Denoiser, Method, State
from cryostudy.methods.patches import box, patch_positions
from cryostudy.methods.standardise import Standardised

SIGMAS = tuple(float(s) for s in np.geomspace(0.4, 4.0, 13))


@dataclass(frozen=True)
class Gaussian(Method):
    """Gaussian filter whose width is chosen without the truth.

    `sigma`: voxels; None chooses the one with the smallest estimated error: with halves, see :func:`errors_of_halves`;
    without, each voxel predicted from its neighbours alone (J-invariant calibration, Batson and Royer 2019, Section 3),
    which takes noise that is correlated between voxels for signal (ERRATA 5).
    `sample`: side of the sub-volumes, and their number, on which the width is chosen.
    """

    name: ClassVar[str] = "gaussian"
    summary: ClassVar[str] = "Gaussian filter, width chosen from the data"
    paper: ClassVar[str] = "width: Batson and Royer 2019"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (48, 2)}}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"sigma": (0, 50), "sample": (1, 10**6)}

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
        Standardised.of(acquisition.full)  # refuses a constant volume
        sigma = self.sigma if self.sigma is not None else calibrate(acquisition, self.sample, seed, progress)
        return Denoiser(self, {"sigma": torch.tensor(sigma)})

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        sigma = float(state["sigma"])
        halo = int(np.ceil(TRUNCATE * sigma))
        return tiled(
            lambda x: gaussian_filter(x, sigma), volume.array(),
            out=out, tile=128 + 2 * halo, halo=halo, blend=0, device=device, progress=progress,
        )  # fmt: skip


def calibrate(acquisition: Acquisition, sample: tuple[int, int], seed: int, progress: bool | None = None) -> float:
    """The sigma (voxels, 0.4 to 4) with the smallest error that can be estimated without the truth.

    Zero borders are left out; of a large volume random sub-volumes with content are looked at.
    """
    patch, count = sample
    volumes = [Standardised.of(volume) for volume in acquisition.halves or (acquisition.full,)]
    positions = patch_positions(volumes[0].shape, patch, limit=10**9, seed=seed)
    errors, left = np.zeros(len(SIGMAS)), min(count, len(positions))
    with tqdm(total=left, desc="calibrate", disable=None if progress is None else not progress) as bar:
        while left and positions:
            where = box(positions.pop(), patch)
            content = torch.from_numpy(np.logical_and.reduce([volume.content(where) for volume in volumes]))
            if content.any():
                first, *rest = (torch.from_numpy(volume[where]) for volume in volumes)
                found = errors_of_halves(first, rest[0], content) if rest else errors_of_prediction(first, content)
                errors += content.sum().item() * np.array(found)
                left -= 1
                bar.update()
    return smallest(errors)


def errors_of_prediction(noisy: Tensor, content: Tensor) -> list[float]:
    """Mean squared error, for each of `SIGMAS`, of predicting each voxel (z, y, x) of `content` from the others."""
    return [(gaussian_filter(noisy, s, omit_centre=True) - noisy)[content].square().mean().item() for s in SIGMAS]


def errors_of_halves(even: Tensor, odd: Tensor, content: Tensor) -> list[float]:
    r"""Error of the filtered mean of two halves, for each of `SIGMAS`, up to a constant.

    .. math:: \|G f - s\|^2 = \|G f\|^2 - 2 \langle G f, s \rangle + \|s\|^2, \quad f = (e + o) / 2,

    and as the halves' noise is independent, :math:`\langle G e, o \rangle` estimates :math:`\langle G f, s \rangle`
    without bias. Comparing G e with o instead would give the best filter of a half, which is too wide for the whole.
    """
    found = []
    for sigma in SIGMAS:
        e, o = gaussian_filter(even, sigma), gaussian_filter(odd, sigma)
        found.append((((e + o) / 2).square() - e * odd - o * even)[content].mean().item())
    return found


def smallest(errors: NDArray[np.float64]) -> float:
    """The sigma at the lowest point of a parabola through the smallest of the errors and its neighbours."""
    k = int(errors.argmin())
    if not 0 < k < len(errors) - 1:
        return SIGMAS[k]
    before, least, after = errors[k - 1 : k + 2]
    shift = 0.5 * (before - after) / max(before - 2 * least + after, 1e-300)
    return float(SIGMAS[k] * (SIGMAS[1] / SIGMAS[0]) ** shift)
