"""What a microscope would record: tilt angles, clean and noisy tilt series."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.simulate.noise import add_projection_noise, noise_level
from cryostudy.tomography import project
from cryostudy.tomography.ctf import apply_ctf


def tilt_angles(tilt_range: float = 60.0, step: float = 2.0) -> tuple[float, ...]:
    """Angles in degrees from -tilt_range to +tilt_range, symmetric about an untilted image, `step` apart.

    Raises InputError unless 0 < step <= tilt_range < 90.
    """
    if not 0 < step <= tilt_range < 90:
        raise InputError(f"tilt range ±{tilt_range:g}° in steps of {step:g}°: give 0 < step <= range < 90")
    n = int(tilt_range / step + 1e-6)
    return tuple(k * float(step) for k in range(-n, n + 1))


def simulate_tilt_series(
    density: np.ndarray,
    angles: Sequence[float],
    noise: str = "ddw",
    level: float | None = None,
    seed: int = 0,
    ctf: Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and clean tilt series (tilt, y, x), float32, of a density (z, y, x) at `angles` in degrees.

    `noise` is a preset that acts on projections ("ddw", "awgn", "poisson", "mixture"), `level` as in
    `add_projection_noise` (None: the preset's own). `ctf`, from `cryostudy.tomography.ctf.ctf`, is applied to both
    series before noise is added. The detector is as wide as the density: what lies beside its field of view at
    high tilt is lost, as in paper 004.

    Raises InputError for an unknown preset, one that acts on volumes, a level that is not positive, or a CTF of
    another shape.
    """
    level = noise_level(noise, level)
    if noise == "white":
        raise InputError("noise 'white' is added to a volume, not to projections; choose another preset")
    clean = project(density, angles)
    if ctf is not None:
        clean = apply_ctf(clean, ctf)
    return add_projection_noise(clean, noise, level, np.random.default_rng([seed, 1])), clean


def reproject(
    volume: np.ndarray,
    angles: Sequence[float],
    noise: str = "awgn",
    level: float | None = None,
    seed: int = 0,
    sigma: float = 2.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paper 001's simulation from any real tomogram (section 5.2): (noisy, clean, truth).

    The volume (z, y, x) is filtered with a 3-D Gaussian of `sigma` voxels, which gives the truth; its
    projections are the clean tilt series, to which noise is added. The mean is removed first: it carries no
    structure, and would make the edges of the field of view the strongest contrast.

    What this truth cannot show: it comes from a reconstruction, so it already lacks the missing
    wedge and contains that tomogram's low-frequency noise. It scores denoising, not the filling of the wedge.
    """
    truth = gaussian_filter(np.asarray(volume, dtype=np.float32), sigma)
    truth -= truth.mean(dtype=np.float64).astype(np.float32)
    noisy, clean = simulate_tilt_series(truth, angles, noise, level, seed)
    return noisy, clean, truth
