"""The noise of a reconstruction: how strong it is, which spectrum it has, and fresh samples of it.

White noise in the tilt series becomes, by filtering and back-projection, noise that is correlated along x and z. It can
be sampled: push new white noise of the same level through the same reconstruction (chapter 17). Where angles and filter
are unknown its spectrum is read off the parts of the volume that hold least structure (chapter 18). Nothing here looks
at a truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.fourier import multiplicity, radius
from cryostudy.tomography import as_filter, reconstruct

Volume = NDArray[np.float32]
HIGH = 0.4  # cycles per voxel; beyond, noise outweighs what a specimen at this sampling holds
SIDE = 32  # voxels; of the patches whose spectra are averaged
QUIETEST = 40  # patches


def fbp_noise(
    shape: tuple[int, int, int],
    angles: Sequence[float],
    filter: str,
    *,
    level: float | NDArray[Any] = 1.0,
    width: int | None = None,
    seed: int | Sequence[int] = 0,
) -> Volume:
    """Noise (z, y, x) of a reconstruction whose tilt series has white noise of this deviation.

    Args:
        shape: of the volume. angles: degrees. filter: "ramp", "hamming", "sirt-like" or "none".
        level: deviation of a pixel; a number, or one for each tilt.
        width: pixels of the detector along x, that of the volume by default.
    """
    z, y, x = shape
    white = np.random.default_rng(seed).standard_normal((len(angles), y, width or x), dtype=np.float32)
    white *= np.broadcast_to(np.asarray(level, np.float32), len(angles))[:, None, None]
    return np.asarray(reconstruct(white, angles, z, filter=as_filter(filter), width=x))


def level_of_series(series: Volume) -> NDArray[np.float64]:
    """Deviation of the white noise of each image of a tilt series (tilt, y, x), from its highest frequencies.

    There images of a specimen hold next to nothing but noise. Noise that is not white, as after interpolation, is
    under-estimated.
    """
    images = torch.as_tensor(np.ascontiguousarray(series))
    sides = tuple(images.shape[-2:])
    weight = (radius(sides) > HIGH) * multiplicity(sides)
    power = torch.fft.rfft2(images - images.mean((1, 2), keepdim=True)).abs().square().double()
    return ((power * weight).sum((1, 2)) / weight.sum() / (sides[0] * sides[1])).sqrt().numpy()


def level_of_volume(volume: Volume, unit: Volume) -> float:
    """Level of the noise in a volume as a multiple of a noise sample of unit level, from the highest frequencies.

    Both (z, y, x), of one shape. For two halves of a recording give half of their difference, whose noise is that of
    their mean. Within 0.5 % on the study's specimens from tilt-series SNR 1/2 to 1/6.

    Raises:
        InputError: the shapes differ, or the unit sample is empty there.
    """
    if volume.shape != unit.shape:
        raise InputError(f"level_of_volume: shapes {volume.shape} and {unit.shape} differ; give samples of one shape")
    found, expected = (high_power(v) for v in (volume, unit))
    if not expected > 0:
        raise InputError("level_of_volume: the noise sample has no power at high frequencies")
    return float(np.sqrt(found / expected))


def high_power(volume: Volume) -> float:
    """Power of a volume (z, y, x) beyond `HIGH` cycles per voxel."""
    spectrum = torch.fft.rfftn(torch.as_tensor(volume - volume.mean())).abs().square().double()
    return float((spectrum * (radius(volume.shape) > HIGH) * multiplicity(volume.shape)).sum())


def spectrum(
    volume: Volume, *, quietest: int | None = None, content: NDArray[np.bool_] | None = None, side: int = SIDE
) -> Tensor:
    """Power spectrum of the noise, a mean over patches: (side, side, side // 2 + 1), variance of a voxel at each.

    Args:
        volume: (z, y, x). `quietest`: take only so many patches, those that vary least after smoothing with a Gaussian
            of 2 voxels: they hold least structure. None takes all: for a volume that is noise already, such as half of
            the difference of two halves.
        content: False where a volume is padded; patches that reach there are left out.
        side: of the patches, voxels; cut to the volume where that is thinner.
    Raises:
        InputError: a side below 8 voxels, or no patch without padding.
    """
    sides = tuple(min(side, n) for n in volume.shape)
    if min(sides) < 8:
        raise InputError(f"noise spectrum: sides {volume.shape}; give a volume of at least 8 voxels along each")
    step = max(side // 4, 1)
    corners = [
        (z, y, x) for z in starts(volume.shape[0], sides[0], step)
        for y in starts(volume.shape[1], sides[1], step) for x in starts(volume.shape[2], sides[2], step)
    ]  # fmt: skip

    def patch(source: NDArray[Any], corner: tuple[int, ...]) -> NDArray[Any]:
        return source[tuple(slice(c, c + n) for c, n in zip(corner, sides, strict=True))]

    if content is not None:
        corners = [corner for corner in corners if patch(content, corner).all()]
        if not corners:
            raise InputError(f"noise spectrum: no {sides} voxels without padding; crop the volume's zero border")
    if quietest is not None:
        smooth = ndimage.gaussian_filter(volume, 2.0)
        order = np.argsort([patch(smooth, corner).var() for corner in corners])
        corners = [corners[i] for i in order[:quietest]]
    window = np.ones((), np.float32)
    for n in sides:  # fades the patches' edges, whose jump would spread power over all frequencies
        window = window[..., None] * np.hanning(n + 2)[1:-1].astype(np.float32)
    total = torch.zeros(sides[0], sides[1], sides[2] // 2 + 1, dtype=torch.float64)
    for corner in corners:
        part = patch(volume, corner)
        total += torch.fft.rfftn(torch.as_tensor((part - part.mean()) * window)).abs().square()
    return (total / len(corners) / float((window**2).sum())).float()


def starts(n: int, side: int, step: int) -> list[int]:
    """Starts of overlapping patches along an axis."""
    return sorted({*range(0, n - side, step), n - side})


def field(shape: tuple[int, int, int], power: Tensor, *, seed: int | Sequence[int] = 0) -> Volume:
    """A Gaussian random field (z, y, x) with a power spectrum such as :func:`spectrum` gives, of whatever sides."""
    white = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    amplitude = resample(power, shape).clamp(min=0).sqrt()
    return torch.fft.irfftn(torch.fft.rfftn(white) * amplitude, s=shape).numpy()


def resample(power: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A power spectrum in rfftn layout, interpolated linearly to the frequencies of a box of another shape."""
    sides = (*power.shape[:2], 2 * (power.shape[2] - 1))
    full = torch.cat([power, power[:, :, 1:-1].flip(0, 1, 2).roll((1, 1), (0, 1))], 2)  # Friedel symmetry
    grid = np.meshgrid(
        *(np.fft.fftfreq(n) * s for n, s in zip(shape[:2], sides[:2], strict=True)),
        np.fft.rfftfreq(shape[2]) * sides[2], indexing="ij",
    )  # fmt: skip
    return torch.from_numpy(ndimage.map_coordinates(full.numpy(), grid, order=1, mode="grid-wrap").astype(np.float32))


def pair_correlation(volume: Volume, sample: Volume, alpha: float = 1.0) -> float:
    """Correlation, beyond `HIGH` cycles per voxel, of y + alpha n with y - n / alpha; both arrays (z, y, x).

    There a specimen is next to nothing, so the pair must be uncorrelated if n is as strong as the noise of y: below
    zero n is too strong, above zero too weak. A check that needs no truth.
    """
    first, second = (torch.fft.rfftn(torch.as_tensor(volume + f * sample)) for f in (alpha, -1 / alpha))
    weight = (radius(volume.shape) > HIGH) * multiplicity(volume.shape)
    cross = float((weight * (first * second.conj()).real).double().sum())
    powers = [float((weight * part.abs().square()).double().sum()) for part in (first, second)]
    return cross / float(np.sqrt(powers[0] * powers[1]))
