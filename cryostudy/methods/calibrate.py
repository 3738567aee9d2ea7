"""Filters with one strength, and the choice of that strength without the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from tqdm import tqdm

from cryostudy.data import Acquisition
from cryostudy.filters import mirror
from cryostudy.inference import tiled
from cryostudy.io.checks import slabs
from cryostudy.methods.base import Denoiser, Method, State
from cryostudy.methods.patches import box, patch_positions
from cryostudy.methods.standardise import Standardised
from cryostudy.training import choose_device

STRIDE = 3  # every third voxel along each axis is hidden, so that the neighbours of a hidden one are all there
STEP = 0.1  # of the noise, by which it is made stronger and weaker to see how much of it passes a filter

Filtered = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Filter(Method):
    """A filter with one strength, chosen from the data where it is not given.

    A subclass sets `strength`, the name of the field that holds it, and `grid`, the values that are tried, in ascending
    order, and defines :meth:`filtered` and :meth:`reach`. With halves the strength is the one with which either half,
    filtered, is nearest to the other (as in :func:`errors_of_halves`). Without them it is the one with which voxels are
    best predicted by their neighbours (:func:`errors_of_prediction`), which takes noise that is correlated between
    voxels for signal (chapter 16).

    `sample`: side of the sub-volumes, and their number, on which the strength is chosen.
    """

    strength: ClassVar[str] = "sigma"
    grid: ClassVar[tuple[float, ...]] = ()
    limits: ClassVar[dict[str, tuple[float, float]]] = {"sample": (1, 10**6)}

    sample: tuple[int, int] = (96, 8)

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The filter's output for a standardised volume (z, y, x), on the same device."""
        raise NotImplementedError

    def denoised(self, volume: Tensor, strength: float) -> Tensor:
        """The estimate of the volume without noise by which the strength is chosen; what else it undoes is left out."""
        return self.filtered(volume, strength)

    def reach(self, strength: float) -> int:
        """How far, in voxels, the value of a voxel acts on others."""
        raise NotImplementedError

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Choose the strength; nothing is random but which sub-volumes of a large volume are looked at.

        The state holds it by its name and, where it was chosen, the strengths `tried` and their `errors`.
        """
        self.check(acquisition)
        Standardised.of(acquisition.full)  # refuses a constant volume
        given = getattr(self, self.strength)
        if given is not None:
            return Denoiser(self, {self.strength: torch.tensor(float(given))})
        errors = calibrate(self.denoised, self.grid, acquisition, self.sample, seed, choose_device(device), progress)
        found = {self.strength: smallest(self.grid, errors), "tried": self.grid, "errors": errors}
        return Denoiser(self, {name: torch.tensor(value, dtype=torch.float32) for name, value in found.items()})

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        strength = float(state[self.strength])
        halo = self.reach(strength)
        return tiled(
            lambda x: self.filtered(x[0, 0], strength)[None, None], volume.array(),
            out=out, tile=128 + 2 * halo, halo=halo, blend=8, device=device, progress=progress,
        )  # fmt: skip


def calibrate(
    filtered: Filtered,
    strengths: tuple[float, ...],
    acquisition: Acquisition,
    sample: tuple[int, int],
    seed: int = 0,
    device: str = "cpu",
    progress: bool | None = None,
) -> list[float]:
    """Mean squared error at each of the strengths, estimated without the truth, in variances of the volume.

    From halves, where there are any, else from the volume alone and then with the (unknown) variance of the noise on
    top. Zero borders are left out; of a large volume random sub-volumes with content are looked at.

    Args:
        filtered: (volume (z, y, x), strength) -> volume. sample: side of the sub-volumes, and their number.
    """
    patch, left = sample
    volumes = [Standardised.of(volume) for volume in acquisition.halves or (acquisition.full,)]
    scale = scale_of_mean(*volumes) if len(volumes) > 1 else 1.0
    positions = patch_positions(volumes[0].shape, patch, limit=10**9, seed=seed)
    errors, count = np.zeros(len(strengths)), 0
    with tqdm(
        total=min(left, len(positions)), desc="calibrate", disable=None if progress is None else not progress
    ) as bar:
        while left and positions:
            where = box(positions.pop(), patch)
            content = torch.from_numpy(np.logical_and.reduce([volume.content(where) for volume in volumes])).to(device)
            if not content.any():
                continue
            first, *rest = (torch.from_numpy(volume[where]).to(device) * scale for volume in volumes)
            if rest:
                found, voxels = errors_of_halves(filtered, strengths, first, rest[0], content)
            else:
                found, voxels = errors_of_prediction(filtered, strengths, first, content)
            errors, count, left = errors + found, count + voxels, left - 1
            bar.update()
    return [float(error) for error in errors / max(count, 1)]


def errors_of_prediction(
    filtered: Filtered, strengths: tuple[float, ...], noisy: Tensor, content: Tensor
) -> tuple[NDArray[np.float64], int]:
    """Sums of squared errors, for each strength, of predicting voxels (z, y, x) from the others; and their number.

    Voxels on a grid are replaced by one of their six neighbours, drawn at random, before filtering, so that the filter
    cannot see them, and are what it is compared with (J-invariant calibration, Batson and Royer 2019, Section 3). That
    holds for any filter, linear or not, as long as noise is independent between voxels. The mean of the neighbours
    would do as well for blindness, but it is less noisy than what the filter will meet and so calls for too weak a
    filter: total variation by a third in a trial.
    """
    hidden = tuple(slice(side // 2 % STRIDE, None, STRIDE) for side in noisy.shape)
    around = mirror(noisy[None, None], [1] * 6)[0, 0]
    ends, inner = (slice(-2), slice(2, None)), slice(1, -1)
    shifts = [tuple(np.roll(np.array([end, inner, inner]), axis)) for end in ends for axis in range(3)]
    neighbours = torch.stack([around[shift][hidden] for shift in shifts])
    drawn = torch.randint(6, neighbours[:1].shape, generator=Generator().manual_seed(0)).to(noisy.device)
    blind = noisy.clone()
    blind[hidden] = neighbours.gather(0, drawn)[0]
    asked = content[hidden]
    found = [(filtered(blind, s) - noisy)[hidden][asked].double().square().sum().item() for s in strengths]
    return np.array(found), int(asked.sum())


def errors_of_halves(
    filtered: Filtered, strengths: tuple[float, ...], even: Tensor, odd: Tensor, content: Tensor
) -> tuple[NDArray[np.float64], int]:
    r"""Sums of squared errors, for each strength, of the filtered mean of two halves (z, y, x); and how many voxels.

    With :math:`y = (e + o) / 2 = s + n` and :math:`d = (e - o) / 2`, which carries noise like n, independent of it,

    .. math:: \|f(y) - s\|^2 = \|f(y) - y\|^2 + 2 \langle f(y), n \rangle - 2 \langle s, n \rangle - \|n\|^2 .

    What of the noise passes the filter is seen by making it stronger and weaker,
    :math:`2 \langle f(y), n \rangle \approx \langle d, f(y + a d) - f(y - a d) \rangle / a`, and the last two terms
    have the expectation of :math:`-\|d\|^2`. For a linear filter the sum is unbiased at any a, and up to a constant
    :math:`\|f(y)\|^2 - \langle f(e), o \rangle - \langle f(o), e \rangle`. For any other it is Stein's estimate of the
    risk (Stein 1981) with a finite step and the recording's own, also correlated, noise as its probe; noise must be
    about normal. :math:`\|f(e) - o\|^2` needs no normal noise but judges the filter on a half, where it must be
    stronger than on the whole; :math:`\langle f(e), o \rangle` in place of :math:`\langle f(y), s \rangle` is biased
    where f is not linear, for it smoothes e otherwise than y.
    """
    mean, noise = (even + odd) / 2, (even - odd) / 2
    found = []
    for s in strengths:
        passed = (filtered(mean + STEP * noise, s) - filtered(mean - STEP * noise, s)) / STEP
        error = (filtered(mean, s) - mean).square() + noise * passed - noise.square()
        found.append(error[content].double().sum().item())
    return np.array(found), int(content.sum())


def scale_of_mean(even: Standardised, odd: Standardised) -> float:
    """What brings the mean of two standardised halves to unit variance, as the full volume has it."""
    product = square = 0.0
    for slab in slabs(even.shape):
        where = (slab, slice(None), slice(None))
        e, o = even[where], odd[where]
        product += float((e * o).sum(dtype=float))
        square += float(((e * e + o * o) / 2).sum(dtype=float))
    return float(((1 + product / square) / 2) ** -0.5)


def smallest(strengths: tuple[float, ...], errors: list[float]) -> float:
    """Where a parabola through the smallest error and its neighbours is lowest, on a logarithmic axis of strengths."""
    k = int(np.argmin(errors))
    if not 0 < k < len(errors) - 1:
        return strengths[k]
    near = np.log(strengths[k - 1 : k + 2])
    curve, slope, _ = np.polyfit(near - near[1], np.subtract(errors[k - 1 : k + 2], errors[k]), 2)
    shift = -slope / (2 * max(curve, 1e-300))
    return float(np.exp(near[1] + np.clip(shift, near[0] - near[1], near[2] - near[1])))
