"""How far to trust a restored voxel: how much of it was filled in, and how far networks of other seeds disagree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryostudy.errors import InputError
from cryostudy.filters import TRUNCATE, gaussian_filter, mirror
from cryostudy.inference import tiled
from cryostudy.tomography import wedge_mask
from cryostudy.tomography.geometry import Angles

Volume = NDArray[np.float32]
WINDOW = 8.0  # voxels, full width at half maximum
FADE = 16  # voxels beyond the faces


def wedge_content(restored: NDArray[Any], angles: Angles, *, window: float = WINDOW) -> Volume:
    """Which part of each voxel's surroundings was filled in, 0 to 1, of a restored volume (z, y, x).

    The volume, without its mean, is split in Fourier space into what the tilts (degrees) measure and what lies in
    their missing wedge. The map is the energy of the second part in that of both, each within a Gaussian window of
    `window` voxels at half maximum; 0 where there is nothing. It counts all that lies in the wedge, right or wrong.

    Faces are mirrored and faded out first, for their jumps would count as filled.

    Raises:
        InputError: unusable angles, or a volume that is not 3-D.
    """
    if restored.ndim != 3:
        raise InputError(f"wedge_content: {restored.ndim}-D data; give a restored volume (z, y, x)")
    whole = torch.from_numpy(np.asarray(restored, np.float32) - np.float32(np.mean(restored, dtype=np.float64)))
    inner = tuple(slice(FADE, FADE + n) for n in whole.shape)
    padded = mirror(whole[None, None], [FADE] * 6)[0, 0]
    for axis, n in enumerate(padded.shape):
        ends = torch.minimum(torch.arange(n), n - 1 - torch.arange(n)).clamp(max=FADE)
        fade = torch.sin(torch.pi / 2 * ends / FADE) ** 2
        padded = padded * fade.reshape([-1 if a == axis else 1 for a in range(3)])
    measured = wedge_mask(padded.shape, angles, rfft=True)
    filled = torch.fft.irfftn(torch.fft.rfftn(padded).mul_(~measured), s=tuple(padded.shape))
    del whole, measured
    padded -= filled
    energy, other = (smoothed(part[inner].square().numpy(), window / 2.3548) for part in (filled, padded))
    other += energy
    np.divide(energy, other, out=energy, where=other > 0)  # where there is nothing, energy is 0
    return np.clip(energy, 0, 1, out=energy)


def smoothed(volume: Volume, sigma: float) -> Volume:
    """The Gaussian filter, tile by tile: torch unfolds what it convolves, which takes thirty times the memory."""
    halo = math.ceil(TRUNCATE * sigma)
    return tiled(
        lambda x: gaussian_filter(x[0, 0], sigma)[None, None], volume, tile=96 + 2 * halo, halo=halo, blend=8,
        progress=False,
    )  # fmt: skip


def spread(volumes: Iterable[NDArray[Any]]) -> Volume:
    """Standard deviation of every voxel over restorations of one recording with several seeds, in their grey values.

    Each volume (z, y, x) loses its mean first. They are taken one by one (Welford 1962), so that memory does not grow
    with their number.

    Raises:
        InputError: fewer than two volumes, or volumes of different shapes.
    """
    count, mean, squares = 0, np.zeros(0), np.zeros(0)
    for volume in volumes:
        now = np.asarray(volume, np.float32) - np.float32(np.mean(volume, dtype=np.float64))
        if count == 0:
            mean, squares = np.zeros_like(now), np.zeros_like(now)
        if now.shape != mean.shape:
            raise InputError(f"spread: shapes {now.shape} and {mean.shape} differ; give restorations of one recording")
        count += 1
        away = now - mean
        mean += away / count
        squares += away * (now - mean)
    if count < 2:
        raise InputError(f"spread: {count} volume; give restorations with two seeds or more")
    return np.sqrt(squares / (count - 1))
