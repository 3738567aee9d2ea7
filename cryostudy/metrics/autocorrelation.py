"""How noise hangs together between voxels, and what a linear filter can make of it.

Stationary noise (or structure) is described by its autocovariance c(d), the mean product of two voxels a lag d apart:
an array of odd sides with the lag 0 in the middle. All filters here are windows of weights w around the voxel that is
estimated, of odd sides too. Of all of them the best ones, and their errors, follow from autocovariances alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn

from cryostudy.errors import InputError
from cryostudy.tomography import Filter, reconstruct

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
SHAPES = {
    "voxel": "the voxel itself (Noise2Void)",
    "cube": "a cube of 3³ (SC-Net)",
    "kernel": "all but the shell from 3³ to 5³ (first layer of the volume shuffle)",
    "sublattice": "every third voxel in all directions (volume shuffle, all layers)",
    "line_x": "the line along x",
    "line_z": "the line along z",
    "plane": "the plane xz across the tilt axis",
}


def autocovariance(volume: NDArray[np.floating], reach: int) -> Array:
    """Mean product of voxels (z, y, x) up to `reach` voxels apart along each axis, the mean taken off: (2 reach + 1)^3.

    The mean is over all pairs there are at a lag, so that it does not fall towards long ones.

    Raises:
        InputError: a side of the volume is not longer than the reach.
    """
    if min(volume.shape) <= reach:
        raise InputError(f"autocovariance: reach {reach} needs sides longer than that; the volume has {volume.shape}")
    centred = np.asarray(volume, np.float64) - np.mean(volume, dtype=np.float64)
    padded = [next_fast_len(side + reach, real=True) for side in volume.shape]
    products = irfftn(np.abs(rfftn(centred, padded)) ** 2, padded)
    lags = np.arange(-reach, reach + 1)
    sums = products[np.ix_(lags, lags, lags)]
    for axis, side in enumerate(volume.shape):
        sums = sums / (side - np.abs(lags)).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(sums)


def reconstruction_autocovariance(
    angles: Sequence[float], filter: Filter | None, reach: int, *, thickness: int = 96, places: int = 512
) -> Array:
    """Autocovariance of reconstructed noise that is white with variance 1 in the tilt series: exact, no sample drawn.

    A reconstruction R is linear, so the covariance of its noise is R Rᵀ, whose row at a voxel is the reconstruction of
    the projection (Rᵀ) of that voxel alone. Rows are averaged over `places` random voxels near the middle, since
    pixels and voxels meet differently at each. Slices across the tilt axis do not meet at all: 0 for every lag in y.
    One part in 2000 is added at lag 0, more than an average over so few places errs by: else the near-empty missing
    wedge could come out below zero, and noise more than predictable.
    """
    rng = np.random.default_rng(0)
    width, spread = 2 * thickness, max(1, thickness // 6)
    middle = np.array([thickness // 2, width // 2])
    if reach + spread >= thickness // 2:
        raise InputError(f"reach: {reach} is too far for a thickness of {thickness}; give a thicker volume")
    where = middle + rng.integers(-spread, spread + 1, (places, 2))
    alone = torch.zeros(thickness, places, width)
    alone[where[:, 0], torch.arange(places), where[:, 1]] = 1  # one voxel in each slice
    series = torch.zeros(len(angles), places, width, requires_grad=True)
    (projected,) = torch.autograd.grad(reconstruct(series, angles, thickness, filter=filter), series, alone)
    rows = reconstruct(projected, angles, thickness, filter=filter).numpy().astype(np.float64)
    plane = np.mean([
        rows[z - reach : z + reach + 1, k, x - reach : x + reach + 1] for k, (z, x) in enumerate(where)
    ], axis=0)  # fmt: skip
    found = np.zeros((2 * reach + 1,) * 3)
    found[:, reach] = (plane + plane[::-1, ::-1]) / 2
    found[reach, reach, reach] *= 1 + 1 / 2000
    return found


def visible(shape: str, window: int) -> Mask:
    """What a filter of a blind-spot shape (one of `SHAPES`) may look at in a window of that odd side; "none": all."""
    z, y, x = np.ogrid[tuple(slice(-(window // 2), window // 2 + 1) for _ in range(3))]
    cube = np.maximum(np.maximum(abs(z), abs(y)), abs(x))
    hidden = {
        "none": cube < 0,
        "voxel": cube == 0,
        "cube": cube <= 1,
        "kernel": (cube <= 1) | (cube > 2),
        "sublattice": (z % 3 == 0) & (y % 3 == 0) & (x % 3 == 0),
        "line_x": (z == 0) & (y == 0) & (x == x),
        "line_z": (z == z) & (y == 0) & (x == 0),
        "plane": (z == z) & (y == 0) & (x == x),
    }
    if shape not in hidden or window < 1 or window % 2 == 0:
        raise InputError(f"visible: {shape!r} in {window} voxels; use one of {', '.join(hidden)} and an odd window")
    return np.asarray(~hidden[shape])


def best_weights(given: Array, target: Array, seen: Mask) -> Array:
    r"""Weights w of the linear filter with the smallest mean squared error, 0 where it may not see.

    The normal equations :math:`\sum_j c(o_i - o_j)\, w_j = t(o_i)` over the visible offsets o, with the autocovariance
    c of the volume that is filtered (`given`) and its covariance t with what is to be estimated (`target`).
    """
    offsets = np.argwhere(seen) - np.array(seen.shape) // 2
    matrix = at(given, offsets[:, None] - offsets[None])
    matrix[np.diag_indices_from(matrix)] += 1e-9 * at(given, np.zeros(3, int))  # exact zeros in a spectrum are allowed
    weights = np.zeros(seen.shape)
    weights[seen] = np.linalg.solve(matrix, at(target, offsets))
    return weights


def at(covariance: Array, lags: NDArray[np.integer]) -> Array:
    """Covariances at lags (..., 3)."""
    index = lags + np.array(covariance.shape) // 2
    if (index < 0).any() or (index >= covariance.shape).any():
        raise InputError("covariance: too short for this window; give lags up to the window's side less one")
    return np.asarray(covariance[tuple(np.moveaxis(index, -1, 0))])


def predictable_share(noise: Array, seen: Mask) -> float:
    """Share of the noise's variance, 0 to 1, that the best linear filter predicts from what it sees.

    That much noise a filter trained to predict voxels from it keeps; 0 for white noise.
    """
    weights = best_weights(noise, noise, seen)
    offsets = np.argwhere(seen) - np.array(seen.shape) // 2
    return float(weights[seen] @ at(noise, offsets) / at(noise, np.zeros(3, int)))


def filter_error(weights: Array, signal: Array, noise: Array) -> float:
    """Mean squared error of filtering signal plus independent noise with `weights`, from their autocovariances."""
    used = np.argwhere(weights != 0) - np.array(weights.shape) // 2
    w = weights[weights != 0]
    both = at(signal, used[:, None] - used[None]) + at(noise, used[:, None] - used[None])
    return float(at(signal, np.zeros(3, int)) - 2 * w @ at(signal, used) + w @ both @ w)


def regressed_share(noise: NDArray[np.floating], seen: Mask, *, samples: int = 40_000, seed: int = 0) -> float:
    """As :func:`predictable_share`, but learnt from one volume of noise: least squares on random voxels, and the share
    of variance that the result predicts on as many other voxels. With few samples it falls a little short, below 0."""
    half = np.array(seen.shape) // 2
    if (np.array(noise.shape) <= 2 * half).any():
        raise InputError(f"regressed_share: a volume of {noise.shape} is too small for a window of {seen.shape}")
    rng = np.random.default_rng(seed)
    where = np.stack([rng.integers(h, n - h, 2 * samples) for h, n in zip(half, noise.shape, strict=True)])
    offsets = (np.argwhere(seen) - half).T
    columns = noise[tuple(where[:, :, None] + offsets[:, None])].astype(np.float64)
    values = noise[tuple(where)].astype(np.float64)
    first, second = columns[:samples], columns[samples:]
    weights = np.linalg.solve(first.T @ first, first.T @ values[:samples])
    return 1 - float(np.mean((values[samples:] - second @ weights) ** 2) / np.mean(values[samples:] ** 2))
