"""Templates turned to many orientations at once, on the device that searches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

OVERSAMPLING = 3  # at which trilinear interpolation errs by less than cubic splines do
PAD = 4  # voxels of zeros around a template, so that sinc interpolation does not wrap


def oversampled(template: NDArray[np.floating], device: str | torch.device = "cpu") -> Tensor:
    """A template (z, y, x), sinc-interpolated at `OVERSAMPLING` points a voxel, for :func:`turned`.

    The attenuation by trilinear interpolation between those points, sinc^2 along each axis, is undone beforehand.
    """
    padded = np.pad(np.asarray(template, np.float64), PAD)
    spectrum = np.fft.fftshift(np.fft.fftn(padded))
    for axis, n in enumerate(padded.shape):
        frequency = (np.arange(n) - n // 2) / n
        weight = np.sinc(frequency / OVERSAMPLING) ** -2
        if n % 2 == 0:
            weight[0] = 0  # the Nyquist frequency's sign is unknown, and with it where its wave lies
        spectrum *= weight.reshape([-1 if a == axis else 1 for a in range(3)])
    width = [((OVERSAMPLING * n) // 2 - n // 2, OVERSAMPLING * n - n - (OVERSAMPLING * n) // 2 + n // 2)
             for n in padded.shape]  # fmt: skip
    fine = np.fft.ifftn(np.fft.ifftshift(np.pad(spectrum, width))).real * OVERSAMPLING**3
    fine = fine[tuple(slice(0, OVERSAMPLING * (n - 1) + 1) for n in padded.shape)]
    return torch.as_tensor(np.ascontiguousarray(fine, np.float32), device=device)


def turned(fine: Tensor, matrices: Tensor, side: int, *, sampling: int = OVERSAMPLING) -> Tensor:
    """What lies at v from the middle of a template lies at R v from the middle of the cubes (n, side, side, side).

    Args:
        fine: from :func:`oversampled`, or the template itself with `sampling` 1. Beyond it lies 0.
        matrices: (n, 3, 3) for (z, y, x) vectors.
    """
    half = (torch.tensor(fine.shape, dtype=torch.float64) - 1) / 2 / sampling  # voxels of the template
    # affine_grid and grid_sample count (x, y, z) from -1 to 1; the inverse rotation leads back into the template.
    inverse = matrices.double().cpu().mT * ((side - 1) / 2) / half[:, None]
    theta = F.pad(inverse.flip(-1, -2), (0, 1)).float().to(fine.device)
    grid = F.affine_grid(theta, [len(theta), 1, side, side, side], align_corners=True)
    return F.grid_sample(fine.expand(len(theta), 1, *fine.shape), grid, align_corners=True)[:, 0]
