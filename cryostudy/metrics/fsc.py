"""Fourier shell correlation and the resolutions read off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryostudy.fourier import multiplicity, shell_index
from cryostudy.metrics.scaling import Volume, same_shape


@dataclass(frozen=True)
class FSC:
    """A Fourier shell correlation curve.

    `frequency`: cycles per Å (per voxel where the voxel size is 0). `correlation`: one value a shell, in [-1, 1].
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]

    def resolution(self, threshold: float = 0.143) -> float:
        """1 / frequency of the first crossing below `threshold`, in Å (voxels where the voxel size is 0).

        Linear interpolation between shells. The smallest resolvable period if the curve never crosses, infinity
        if it starts below.
        """
        below = np.flatnonzero(self.correlation < threshold)
        if below.size == 0:
            return float(1 / self.frequency[-1])
        k = int(below[0])
        if k == 0:
            return float("inf")
        f, c = self.frequency[k - 1 : k + 1], self.correlation[k - 1 : k + 1]
        return float(1 / (f[0] + (c[0] - threshold) / (c[0] - c[1]) * (f[1] - f[0])))


def fsc(a: Volume, b: Volume, *, voxel_size: float = 0.0) -> FSC:
    r"""Fourier shell correlation of two volumes (z, y, x).

    .. math:: \mathrm{FSC}(r) = \frac{\sum_{k \in r} A_k B_k^*}{\sqrt{\sum_{k \in r} |A_k|^2 \sum_{k \in r} |B_k|^2}}

    Shells as in :func:`cryostudy.fourier.shell_index`; a shell without power gets 0. The volumes' edges are faded out
    first (:func:`taper`).

    Args:
        voxel_size: Å; 0 gives frequencies in cycles per voxel.
    Raises:
        InputError: shapes differ.
    Source: Harauz and van Heel 1986 (`harauz1986`); Yang et al. 2021 (`yang2021`), Equation 9.
    """
    same_shape(a, b)
    index, frequency = shell_index(a.shape, rfft=True)
    weight = multiplicity(a.shape).expand(index.shape).double()
    fa, fb = (torch.fft.rfftn(torch.from_numpy(taper(v))) for v in (a, b))

    def shells(product: torch.Tensor) -> NDArray[np.float64]:
        return torch.bincount(index.flatten(), (weight * product).flatten())[: len(frequency)].numpy()

    norm = np.sqrt(shells(fa.abs() ** 2) * shells(fb.abs() ** 2))
    cross = shells((fa * fb.conj()).real)
    curve = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 1e-12 * max(norm.max(), 1e-300))
    return FSC(frequency.numpy().astype(np.float64) / (voxel_size or 1.0), curve)


def taper(volume: Volume) -> NDArray[np.float64]:
    """The volume without its mean, faded to zero over the outer eighth of each side.

    The transform takes a volume to repeat itself; the jumps at its edges, alike in two volumes of one specimen, would
    otherwise pass for agreement at high frequency as soon as a filter has removed what was there.
    """
    faded = np.asarray(volume, np.float64) - np.mean(volume, dtype=np.float64)
    for axis, side in enumerate(volume.shape):
        distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
        window = np.sin(0.5 * np.pi * np.minimum(1, distance / max(side / 8, 0.5))) ** 2
        faded *= window.reshape([-1 if a == axis else 1 for a in range(3)])
    return faded


def fsc_even_odd(even: Volume, odd: Volume, *, voxel_size: float = 0.0) -> FSC:
    r"""FSC of two half-tomograms, corrected to the full one: 2 FSC / (FSC + 1).

    Of restored volumes it measures self-consistency, not truth: a method can make both halves wrong alike.

    Source: Cardone et al. 2005; Yang et al. 2021 (`yang2021`), Equation 10.
    """
    half = fsc(even, odd, voxel_size=voxel_size)
    return FSC(half.frequency, 2 * half.correlation / np.maximum(half.correlation + 1, 1e-6))
