"""Torch filters used as guidance and as baselines: one code path for CPU and GPU.

All act on the last three axes (z, y, x), mirror the volume at its borders and take sigmas in voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from cryostudy.errors import InputError
from cryostudy.fourier import radius

TRUNCATE = 3.0  # kernels reach this many sigmas


def gaussian_kernel(sigma: float, *, device: torch.device | None = None) -> Tensor:
    """Sampled 1-D Gaussian, normalised to sum 1, `2 ceil(3 sigma) + 1` voxels long."""
    reach = math.ceil(TRUNCATE * sigma)
    x = torch.arange(-reach, reach + 1, dtype=torch.float32, device=device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    return kernel / kernel.sum()


def gaussian_filter(volume: Tensor, sigma: float, *, omit_centre: bool = False) -> Tensor:
    """Gaussian filter of (..., z, y, x); `sigma` in voxels, 0 returns the volume.

    `omit_centre=True` leaves out the voxel itself and renormalises: the J-invariant twin by which sigma can be chosen
    without the truth (Batson and Royer, Noise2Self, Section 3).

    Raises:
        InputError: sigma is negative.
    """
    if sigma < 0:
        raise InputError(f"gaussian_filter: sigma {sigma} must be 0 or more (voxels)")
    if sigma == 0:
        return volume
    kernel = gaussian_kernel(sigma, device=volume.device).to(volume.dtype)
    out = volume.reshape(-1, 1, *volume.shape[-3:])
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = -1
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = kernel.numel() // 2
        out = F.conv3d(mirror(out, pad), kernel.view(shape))
    out = out.reshape(volume.shape)
    if not omit_centre:
        return out
    centre = kernel.max() ** 3
    return (out - centre * volume) / (1 - centre)


def bilateral_filter(volume: Tensor, sigma_space: float, sigma_range: float, *, radius: int | None = None) -> Tensor:
    """Bilateral filter of (..., z, y, x): a Gaussian in space times a Gaussian in the difference of grey values.

    Args:
        sigma_space: voxels. sigma_range: units of the volume. radius: half side of the window, default 2 sigma_space.
    Source: Tomasi and Manduchi 1998 (`tomasi1998`), in 3-D.
    Raises:
        InputError: a sigma is not positive.
    """
    if sigma_space <= 0 or sigma_range <= 0:
        raise InputError(f"bilateral_filter: sigmas {sigma_space}, {sigma_range} must be positive")
    reach = max(1, math.ceil(2 * sigma_space)) if radius is None else radius
    x = volume.reshape(-1, 1, *volume.shape[-3:])
    padded = mirror(x, [reach] * 6)
    d, h, w = x.shape[-3:]
    total, weight = torch.zeros_like(x), torch.zeros_like(x)
    for dz in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                shifted = padded[..., reach + dz :, reach + dy :, reach + dx :][..., :d, :h, :w]
                space = -(dz * dz + dy * dy + dx * dx) / (2 * sigma_space**2)
                factor = (shifted - x).square_().mul_(-0.5 / sigma_range**2).add_(space).exp_()
                weight += factor
                total.addcmul_(factor, shifted)
    return (total / weight).reshape(volume.shape)


def fourier_filter(volume: Tensor, transfer: Callable[[Tensor], Tensor], reach: int) -> Tensor:
    """Multiply the spectrum of (..., z, y, x) by a function of the spatial frequency.

    Args:
        transfer: frequency in cycles per voxel -> factor, of the same shape.
        reach: voxels over which the filter's response extends; mirrored all round, so that no edge meets the opposite.
    """
    fast = [next_fast_len(side + 2 * reach, real=True) - side - reach for side in reversed(volume.shape[-3:])]
    padded = mirror(volume.reshape(-1, 1, *volume.shape[-3:]), [pad for more in fast for pad in (reach, more)])
    sides = tuple(padded.shape[-3:])
    factor = transfer(radius(sides, device=volume.device))
    out = torch.fft.irfftn(torch.fft.rfftn(padded, dim=(-3, -2, -1)) * factor, s=sides, dim=(-3, -2, -1))
    z, y, x = volume.shape[-3:]
    return out[..., reach : reach + z, reach : reach + y, reach : reach + x].reshape(volume.shape)


def mirror(x: Tensor, pad: list[int]) -> Tensor:
    """Mirror-pad (n, c, z, y, x), also where the volume is thinner than the padding (then several times)."""
    while any(pad):
        sides = [s for s in reversed(x.shape[-3:]) for _ in range(2)]
        now = [min(p, side - 1) for p, side in zip(pad, sides, strict=True)]
        if not any(now):  # sides of one voxel have nothing to mirror
            return F.pad(x, pad, mode="replicate")
        x = F.pad(x, now, mode="reflect")
        pad = [p - n for p, n in zip(pad, now, strict=True)]
    return x
