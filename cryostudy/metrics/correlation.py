"""Correlation coefficients: of voxels, and of what was measured outside the missing wedge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cryostudy.fourier import multiplicity
from cryostudy.metrics.scaling import Volume, same_shape
from cryostudy.tomography import wedge_mask


def correlation(a: Volume, b: Volume) -> float:
    """Pearson correlation coefficient of the voxels of two volumes, in [-1, 1]; 0 if one of them is constant."""
    same_shape(a, b)
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt(np.vdot(x, x) * np.vdot(y, y))
    return float(np.vdot(x, y) / norm) if norm > 0 else 0.0


def correlation_outside_wedge(a: Volume, b: Volume, angles: Sequence[float]) -> float:
    """Correlation coefficient of two volumes (z, y, x) over the Fourier voxels that the tilts measured.

    What a method filled into the missing wedge is ignored, zero frequency too.

    Args:
        angles: all tilt angles, degrees.
    Source: Wiedemann and Heckel 2024 (`wiedemann2024`), Section 3 and Figure 5.
    """
    same_shape(a, b)
    mask = wedge_mask(a.shape, angles, rfft=True).clone()
    mask[0, 0, 0] = False
    weight = (mask * multiplicity(a.shape)).double()
    fa, fb = (torch.fft.rfftn(torch.as_tensor(np.asarray(v, np.float64))) for v in (a, b))

    def product(f: torch.Tensor, g: torch.Tensor) -> float:
        return float((weight * (f * g.conj()).real).sum())

    norm = (product(fa, fa) * product(fb, fb)) ** 0.5
    return product(fa, fb) / norm if norm > 0 else 0.0
