r"""Local normalised cross-correlation: Pearson's, of a template with what lies under its mask, at every voxel.

With m the mask, P its sum, and means and deviations s weighted by m (`roseman2003`, Equations 5-7):

.. math:: \mathrm{score}(x) = \frac{\sum_j m_j (t_j - \bar t)\, v(x + j)}{P\, s_t\, s_v(x)}

The part that depends on the template is a small kernel, so one Fourier transform of the volume serves all templates; a
spherical mask is its own rotation, so s_v is computed once as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor

Wanted = Sequence[slice]
FLAT = 1e-3  # of the volume's deviation: what varies less under the mask has no score


def kernels(templates: Tensor, masks: Tensor) -> Tensor:
    """m (t - mean t) / (P s_t) of templates (n, s, s, s) under masks (n or 1, s, s, s); 0 for a flat one."""
    axes = (-3, -2, -1)
    weight = masks / masks.sum(axes, keepdim=True)
    deviation = templates - (weight * templates).sum(axes, keepdim=True)
    variance = (weight * deviation.square()).sum(axes, keepdim=True)
    scale = templates.abs().amax(axes, keepdim=True)
    return weight * deviation * torch.where(variance > (1e-4 * scale) ** 2, variance, torch.inf).rsqrt()


def fast_sides(shape: Sequence[int]) -> tuple[int, int, int]:
    """Sides at least so long whose Fourier transforms are fast: of small factors, and multiples of four.

    75 takes longer than 80.
    """
    z, y, x = (4 * next_fast_len(-(-n // 4), real=True) for n in shape)
    return z, y, x


def transform(cubes: Tensor, sides: Sequence[int]) -> Tensor:
    """rfftn of small cubes (n, s, s, s) in zero-padded boxes: the axes one by one, so that empty lines cost nothing."""
    spectrum = torch.fft.rfft(cubes, sides[2])
    spectrum = torch.fft.fft(spectrum, sides[1], dim=-2)
    return torch.fft.fft(spectrum, sides[0], dim=-3)


def correlate(spectrum: Tensor, cubes: Tensor, sides: Sequence[int], wanted: Wanted) -> Tensor:
    """sum_j c_j v(x + j) for cubes (n, s, s, s), j from -(s // 2) to s // 2, at the wanted voxels x of a periodic v.

    spectrum: rfftn of v, a box of `sides`. wanted: a slice of x along each axis, s // 2 or more from the box's end.
    """
    # the mirrored cube turns correlation into convolution: no conjugate, and the sum at x lies half a cube further
    half = cubes.shape[-1] // 2
    z, y, x = (slice(s.start + half, s.stop + half) for s in wanted)
    product = transform(cubes.flip(-3, -2, -1), sides).mul_(spectrum)
    part = torch.fft.ifftn(product, dim=(-3, -2))[:, z, y]
    return torch.fft.irfft(part, sides[2])[..., x]


def inverse_deviation(volume: Tensor, masks: Tensor, wanted: Wanted) -> Tensor:
    """1 / s_v(x) under masks (n, s, s, s) at the wanted voxels of a volume of deviation about 1; 0 where it is flat.

    In float64: the variance is a small difference of large numbers.
    """
    weights = masks.double() / masks.double().sum((-3, -2, -1), keepdim=True)
    first, second = (correlate(torch.fft.rfftn(volume.double() ** k), weights, volume.shape, wanted) for k in (1, 2))
    variance = second - first.square()
    return torch.where(variance > FLAT**2, variance, torch.inf).rsqrt().float()
