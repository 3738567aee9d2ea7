"""A template made ready: its sampling, its mask, what the microscope and the missing wedge leave of it, and a stand-in
that has its spectrum and nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cryostudy.averaging.boxes import soft_sphere
from cryostudy.fourier import multiplicity
from cryostudy.fourier import radius as frequency_radius
from cryostudy.simulate import placement
from cryostudy.simulate.densities import Densities
from cryostudy.tomography import wedge_mask
from cryostudy.tomography.ctf import ctf_radial

Array = NDArray[np.float32]
EXTENT = 0.05  # share of the largest deviation from the background that still belongs to the particle
EDGE = 2.0  # voxels over which a mask falls to 0


def centred(template: NDArray[np.floating]) -> Array:
    """A template (z, y, x) less its background, the median of its six faces."""
    volume = np.asarray(template, np.float32)
    faces = [np.take(volume, k, axis).ravel() for axis in range(3) for k in (0, -1)]
    return volume - np.float32(np.median(np.concatenate(faces)))


def resampled(template: NDArray[np.floating], voxel_size: float, to: float) -> Array:
    """A template (z, y, x) at another voxel size (Å), about the same centre, in a cube of odd side; smoothed first
    where voxels become larger."""
    volume = centred(template)
    side = max(volume.shape) + 1 - max(volume.shape) % 2
    offset = [(n - side) / 2 for n in volume.shape]
    cube = ndimage.affine_transform(volume, np.ones(3), offset, (side,) * 3, order=3)
    maps = Densities({"template": cube}, voxel_size, "built-in")
    return np.asarray(placement.resampled(maps, to).maps["template"], np.float32)


def extent(template: NDArray[np.floating]) -> float:
    """Radius in voxels of the sphere about the centre that holds the particle."""
    volume = np.abs(centred(template))
    inside = np.argwhere(volume > EXTENT * volume.max()) - (np.array(volume.shape) - 1) / 2
    return float(np.sqrt((inside**2).sum(1).max()))


def spherical_mask(radius: float, edge: float = EDGE) -> Array:
    """A ball in the smallest odd cube: 1 within `radius` voxels, falling to 0 as a cosine over `edge` voxels."""
    half = int(np.ceil(radius + edge))
    return soft_sphere(2 * half + 1, radius, edge)


def own_mask(template: NDArray[np.floating]) -> Array:
    """The ball about a template in an odd cube, in that cube: for a search with the template changed by a filter."""
    return soft_sphere(len(template), min(extent(template), len(template) // 2 - EDGE))


def is_spherical(mask: NDArray[np.floating]) -> bool:
    """Whether a mask depends on the distance from its centre alone, so that turning it changes nothing."""
    axes = [(2 * np.arange(n) - (n - 1)) ** 2 for n in mask.shape]
    squared = (axes[0][:, None, None] + axes[1][:, None] + axes[2]).ravel()
    low, high = (np.full(squared.max() + 1, fill) for fill in (np.inf, -np.inf))
    np.minimum.at(low, squared, mask.ravel())
    np.maximum.at(high, squared, mask.ravel())
    seen = np.isfinite(low)
    fits = all(n % 2 for n in mask.shape) and len(set(mask.shape)) == 1
    return bool(fits and (high[seen] - low[seen]).max() <= 1e-3 * np.abs(mask).max())


def transfer(
    side: int,
    *,
    tilt_angles: Sequence[float] | None = None,
    voxel_size: float = 0.0,
    defocus: float | None = None,
    flipped: bool = True,
    device: str | torch.device = "cpu",
) -> Tensor | None:
    """What a recording leaves of a template's Fourier transform: (side, side, side // 2 + 1), or None for all of it.

    Args:
        tilt_angles: degrees; what lies in their missing wedge becomes 0. defocus: Å, of the tilt at 0°; the CTF
            without astigmatism. flipped: the tomogram was corrected for the CTF's sign, so |CTF| is taken; else -CTF,
            which keeps the contrast of low frequencies.
    """
    weight = None
    if tilt_angles is not None:
        weight = wedge_mask((side,) * 3, tilt_angles, rfft=True, device=device).float()
    if defocus is not None:
        curve = -ctf_radial(frequency_radius((side,) * 3, device=device) / voxel_size, defocus)
        curve = curve.abs() if flipped else curve
        weight = curve if weight is None else weight * curve
    return weight


def wedged(volume: NDArray[np.floating], tilt_angles: Sequence[float]) -> Array:
    """A volume (z, y, x) without what lies in the missing wedge of these tilt angles, its mean kept."""
    spectrum = torch.fft.rfftn(torch.as_tensor(np.asarray(volume, np.float32)))
    spectrum *= wedge_mask(volume.shape, tilt_angles, rfft=True)
    return torch.fft.irfftn(spectrum, s=volume.shape).numpy()


def phase_randomised(template: NDArray[np.floating], seed: int = 0) -> Array:
    """A template with the same power spectrum and the phases of white noise: it matches whatever is not the particle as
    well as the template does (Chaillet et al. 2023, Int. J. Mol. Sci. 24:13375, use it as noise reference)."""
    volume = centred(template)
    noise = np.fft.rfftn(np.random.default_rng(seed).standard_normal(volume.shape))
    spectrum = np.abs(np.fft.rfftn(volume)) * noise / np.maximum(np.abs(noise), 1e-12)
    return np.fft.irfftn(spectrum, s=volume.shape, axes=(0, 1, 2)).astype(np.float32)


def whitened(
    volume: NDArray[np.floating], template: NDArray[np.floating], recorded: NDArray[np.floating] | None = None
) -> tuple[Array, Array]:
    """A tomogram (z, y, x) of equal mean power in every Fourier shell, and a template seen through a filter.

    Correlating the two weighs each frequency by its signal over the noise there, where plain correlation lets those
    count most in which the tomogram is strongest. Almost all of a tomogram is noise, so its own power serves.

    Args:
        recorded: the tomogram that `volume` is a restoration of. The template gets the filter that whitens that one, so
            that a restoration which is a filter and no more gives what the recording gives.
    """
    data = np.asarray(volume, np.float32)
    shell, scale = whitening(data)
    white = np.fft.irfftn(np.fft.rfftn(data) * scale[shell], s=data.shape, axes=(0, 1, 2))
    density = centred(template)
    given = data if recorded is None else np.asarray(recorded, np.float32)
    _, scale = whitening(given)
    places = np.arange(len(scale)) / (2 * (min(given.shape) // 2))
    seen = np.fft.rfftn(density) * np.interp(frequency_radius(density.shape).numpy(), places, scale)
    turned = np.fft.irfftn(seen, s=density.shape, axes=(0, 1, 2))
    return (white / white.std()).astype(np.float32), (turned / np.abs(turned).max()).astype(np.float32)


def whitening(volumes: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The shell of each Fourier voxel, and the factor that brings each shell's mean power to one; 0 for the mean.

    Args:
        volumes: (z, y, x), or (n, z, y, x) for one factor a shell for all of them.
    Returns:
        shell (z, y, x // 2 + 1) and factor (shells,), so that `factor[shell]` is a filter.
    """
    shape = volumes.shape[-3:]
    shell = (2 * (min(shape) // 2) * frequency_radius(shape).numpy()).round().astype(int)
    often = np.broadcast_to(multiplicity(shape).numpy(), shell.shape).ravel()
    squared = np.abs(np.fft.rfftn(volumes, axes=(-3, -2, -1))) ** 2
    total = np.bincount(shell.ravel(), often * squared.reshape(-1, *shell.shape).mean(0).ravel())
    power = total / np.bincount(shell.ravel(), often)
    power[0] = 0
    scale = np.maximum(power, max(1e-12 * power.max(), 1e-30)) ** -0.5
    scale[0] = 0
    return shell, scale
