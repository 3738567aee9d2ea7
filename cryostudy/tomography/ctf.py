"""Contrast transfer function of the microscope, without astigmatism: put it on a tilt series or correct for it.

Sign: CTF(k) = -sin(χ(k) + arcsin(A)), so CTF(0) = -A, and density, which is positive in a volume, is dark in an
underfocused image (Mindell and Grigorieff 2003, J. Struct. Biol. 142:334; Rohou and Grigorieff 2015, J. Struct.
Biol. 192:216, eq. 2-5). Both corrections bring it back to positive.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import constants
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.fourier import Device, radius
from cryostudy.tomography.arrays import Array, like, to_tensor


def electron_wavelength(voltage: float) -> float:
    """Relativistic wavelength in Å of electrons accelerated by ``voltage`` kV: 0.0197 Å at 300 kV."""
    if not voltage > 0:
        raise InputError(f"voltage: {voltage} given; give kilovolts above 0")
    energy = voltage * 1e3 * constants.e
    momentum = math.sqrt(energy * (2 * constants.m_e + energy / constants.c**2))
    return constants.h / momentum * 1e10


def ctf_radial(
    frequency: Tensor,
    defocus: float | Sequence[float] | np.ndarray | Tensor,
    *,
    voltage: float = 300,
    cs: float = 2.7,
    amplitude_contrast: float = 0.07,
    phase_shift: float = 0,
    b_factor: float = 0,
) -> Tensor:
    """CTF at spatial frequencies in 1/Å, of any shape: float32 of that shape.

    defocus: Å, underfocus positive; a list of n values gives (n, ...), one CTF for each tilt. voltage: kV. cs:
    spherical aberration in mm. amplitude_contrast: A, 0 to 1. phase_shift: of a phase plate, degrees. b_factor:
    Å², the envelope exp(-B k² / 4). Raises InputError for a voltage, contrast or defocus out of range.
    """
    if not 0 <= amplitude_contrast <= 1:
        raise InputError(f"amplitude_contrast: {amplitude_contrast} given; give a fraction from 0 to 1")
    under = torch.as_tensor(defocus, dtype=torch.float64, device=frequency.device)
    if under.ndim > 1 or not under.isfinite().all():
        raise InputError("defocus: give one finite number in Å, or a list with one for each tilt")
    wavelength = electron_wavelength(voltage)
    squared = frequency.double() ** 2
    under = under.reshape(under.shape + (1,) * squared.ndim)
    phase = math.pi * wavelength * under * squared - math.pi / 2 * cs * 1e7 * wavelength**3 * squared**2
    phase = phase + math.radians(phase_shift) + math.asin(amplitude_contrast)
    return (-torch.sin(phase) * torch.exp(-b_factor / 4 * squared)).float()


def ctf(
    shape: Sequence[int],
    pixel_size: float,
    defocus: float | Sequence[float] | np.ndarray | Tensor,
    *,
    voltage: float = 300,
    cs: float = 2.7,
    amplitude_contrast: float = 0.07,
    phase_shift: float = 0,
    b_factor: float = 0,
    rfft: bool = True,
    device: Device = None,
) -> Tensor:
    """CTF of images of ``shape`` (y, x) with pixels of ``pixel_size`` Å; the rest as in ``ctf_radial``.

    Returns (y, x // 2 + 1) in rfft2 layout, or (y, x) in fft2 layout with ``rfft=False``; with a list of n
    defocus values (n, ...). Raises InputError for a shape that is not 2-D or a pixel size not above 0.
    """
    if len(shape) != 2:
        raise InputError(f"shape: {tuple(shape)} given; a CTF needs the two sides (y, x) of an image")
    if not pixel_size > 0:
        raise InputError(f"pixel_size: {pixel_size} given; give the size of a pixel in Å, above 0")
    return ctf_radial(
        radius(shape, rfft, device=device) / pixel_size,
        defocus,
        voltage=voltage,
        cs=cs,
        amplitude_contrast=amplitude_contrast,
        phase_shift=phase_shift,
        b_factor=b_factor,
    )


def apply_ctf(tilt_series: Array, ctf: Tensor) -> Array:
    """Tilt series (tilt, y, x) as the microscope would record it: its transform times the CTF.

    ctf: (y, x // 2 + 1) for all tilts or (tilt, y, x // 2 + 1), from ``ctf``. Edges wrap around. Returns the
    same kind and device, float32. Raises InputError when the shapes do not fit.
    """
    return _multiply(tilt_series, ctf)


def correct_ctf(
    tilt_series: Array,
    ctf: Tensor,
    mode: Literal["phase-flip", "wiener"] = "phase-flip",
    *,
    snr: float | None = None,
) -> Array:
    """Tilt series (tilt, y, x) with the CTF's signs ("phase-flip") or also amplitudes ("wiener") undone.

    ctf: as in ``apply_ctf``. "phase-flip" multiplies the transform by the sign of the CTF; "wiener" by
    CTF / (CTF² + 1 / snr), with snr > 0 the ratio of signal to noise power (Penczek 2010, Methods Enzymol.
    482:35). Raises InputError for an unknown mode, a missing snr, or shapes that do not fit.
    """
    if mode == "phase-flip":
        return _multiply(tilt_series, torch.where(ctf < 0, -1.0, 1.0))
    if mode != "wiener":
        raise InputError(f"mode: {mode!r} is unknown; give 'phase-flip' or 'wiener'")
    if snr is None or not snr > 0:
        raise InputError(f"snr: {snr} given; a Wiener correction needs a signal-to-noise ratio above 0")
    return _multiply(tilt_series, ctf / (ctf**2 + 1 / snr))


def _multiply(tilt_series: Array, transfer: Tensor) -> Array:
    tensor = to_tensor(tilt_series, "tilt_series", "tilt, y, x")
    tilts, y, x = tensor.shape
    if tuple(transfer.shape) not in {(y, x // 2 + 1), (1, y, x // 2 + 1), (tilts, y, x // 2 + 1)}:
        raise InputError(
            f"ctf: shape {tuple(transfer.shape)} does not fit a tilt series {tuple(tensor.shape)}; "
            f"give ({y}, {x // 2 + 1}) or ({tilts}, {y}, {x // 2 + 1})"
        )
    spectrum = torch.fft.rfft2(tensor) * transfer.to(tensor.device)
    return like(torch.fft.irfft2(spectrum, s=(y, x)), tilt_series)
