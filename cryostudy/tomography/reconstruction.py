"""Tilt series from a volume, and weighted back-projection: tilt axis y, beam along z at 0°.

At tilt θ the voxel (z, x) falls on detector coordinate s = x cos θ + z sin θ, all three counted from the centres
(n - 1) / 2 of their axes.
"""

import math
from typing import Literal, get_args

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.tomography.arrays import Array, check_size, like, to_tensor
from cryostudy.tomography.geometry import Angles, check_angles, tilt_shares
from cryostudy.tomography.projection import BackProject, Geometry, Project

Filter = Literal["ramp", "hamming", "sirt-like"]
SIRT_ITERATIONS = 20


def project(volume: Array, angles: Angles, *, width: int | None = None) -> Array:
    """Tilt series of a volume: integrals of density along the beam, in density times voxels.

    volume: (z, y, x), NumPy or torch (CPU or GPU, differentiable). angles: degrees, one for each tilt. width:
    pixels of the detector along x, the volume's x by default; what falls beside it is lost. Returns (tilt, y,
    width), float32, same kind and device. A pixel is the mean over its width of the integrals through square
    voxels of constant density (module ``projection``); the adjoint of ``reconstruct(..., filter=None)``.

    Raises InputError for a volume that is not 3-D, unusable angles, or a width below 1.
    """
    tensor = to_tensor(volume, "volume", "z, y, x")
    radians = tuple(np.deg2rad(check_angles(angles)).tolist())
    detector = check_size(width, tensor.shape[2], "width")
    return like(Project.apply(tensor, Geometry(tensor.shape[0], tensor.shape[2], detector, radians)), volume)


def as_filter(name: str | None) -> Filter | None:
    """A filter as :func:`reconstruct` takes it, from the name that an acquisition keeps: "none" is none."""
    return None if name == "none" else name  # type: ignore[return-value]


def reconstruct(
    tilt_series: Array,
    angles: Angles,
    thickness: int,
    *,
    filter: Filter | None = "ramp",
    width: int | None = None,
) -> Array:
    """Tomogram by weighted back-projection (Kak and Slaney 1988, section 3.3).

    tilt_series: (tilt, y, x), NumPy or torch (CPU or GPU, differentiable). angles: degrees, one for each tilt, in
    any order and steps. thickness: slices along z. width: columns along x, the tilt series' by default. filter,
    applied along x to the projections (``transfer_function``):

    - "ramp": a full 180° series of an object gives back the object's density
    - "hamming": the ramp times a Hamming window, which falls to 0.08 at Nyquist
    - "sirt-like": the ramp damped as after 20 iterations of SIRT: less high-frequency noise, softer
    - None: no filter and no weights, the plain sum over tilts, which is the exact adjoint of ``project``

    With a filter each tilt is weighted by the angle it stands for (``tilt_shares``). Projections are padded
    with zeros to at least twice their width, so subtract the background from real data first. Returns
    (thickness, y, width), float32, same kind and device.

    Raises InputError for a tilt series that is not 3-D, an angle count that differs from it, an unknown filter,
    or a thickness or width below 1.
    """
    tensor = to_tensor(tilt_series, "tilt_series", "tilt, y, x")
    radians = tuple(np.deg2rad(check_angles(angles, tensor.shape[0])).tolist())
    geometry = Geometry(
        check_size(thickness, 1, "thickness"),
        check_size(width, tensor.shape[2], "width"),
        tensor.shape[2],
        radians,
    )
    if filter is not None:
        if filter not in get_args(Filter):
            raise InputError(f"filter: {filter!r} is unknown; give one of {', '.join(get_args(Filter))} or None")
        tensor = _filtered(tensor, tilt_shares(angles), filter, geometry.depth)
    return like(BackProject.apply(tensor, geometry), tilt_series)


def _filtered(series: Tensor, shares: np.ndarray, filter: Filter, thickness: int) -> Tensor:
    width = series.shape[2]
    padded = next_fast_len(2 * width, real=True)
    transfer = transfer_function(padded, filter, thickness).to(series.device)
    # One tilt at a time bounds the memory of the padded transforms.
    return torch.stack(
        [
            torch.fft.irfft(torch.fft.rfft(tilt, n=padded) * (transfer * float(share)), n=padded)[:, :width]
            for tilt, share in zip(series, shares, strict=True)
        ]
    )


def transfer_function(length: int, filter: Filter, thickness: int) -> Tensor:
    """Filter of ``reconstruct`` on the frequencies of ``rfft`` over ``length`` (padded) pixels: float32, 1-D.

    The ramp is the transform of its band-limited impulse response, 1/4 at 0, -1/(π n)² at odd n, 0 at even n
    (Kak and Slaney 1988, eq. 3.61), not |k| itself, whose zero at k = 0 would take away the mean.

    "sirt-like": SIRT adds to f at every iteration the back-projected mean over N tilts of (p - A f) / L, with L
    the length of a ray in the volume. From all sides AᵀA weights frequency k by N / (π k), so n iterations from
    zero bring the component at k to 1 - (1 - α/k)ⁿ of its value, with α = 1 / (π L) (Zeng 2012, Med. Phys.
    39:603). Here n is 20 and L the ``thickness``; frequencies below α count as fully restored.
    """
    n = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    response = torch.where(n.round() % 2 == 1, -1 / (math.pi * n) ** 2, 0.0)
    response[0] = 0.25
    ramp = torch.fft.rfft(response).real
    if filter == "hamming":
        k = torch.fft.rfftfreq(length, dtype=torch.float64)
        ramp = ramp * (0.54 + 0.46 * torch.cos(2 * math.pi * k))
    elif filter == "sirt-like":
        step = 1 / (math.pi * thickness)
        ramp = ramp * (1 - (1 - step / ramp.clamp(min=step)) ** SIRT_ITERATIONS)
    return ramp.float()
