"""The noise models of the study and their levels.

Images are in specimen contrast: ice 0, structure positive. Where a paper states noise relative to projections
normalised to [0, 1], the range here is that of the whole clean tilt series, from its minimum to its maximum.
The projections keep their own units and the noise is scaled instead, which is the same up to one affine map
of the series.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from cryostudy.errors import InputError


@dataclass(frozen=True)
class NoisePreset:
    """A noise model: its `default_level`, what `level` means (in `description`, a format string), and its source."""

    default_level: float
    description: str
    source: str


PRESETS: Final[dict[str, NoisePreset]] = {
    "ddw": NoisePreset(
        0.25,
        "white Gaussian noise on the projections at tilt-series SNR {level:.3g}",
        "paper 004, section 2.2.3: SNR 1/2, 1/4, 1/6",
    ),
    "awgn": NoisePreset(
        0.2,
        "white Gaussian noise on the projections, sigma {level:.3g} of their grey range",
        "paper 000, section 5.2: 0.1, 0.15, 0.2; paper 001, section 5.3: 10, 15, 20, of 255 if 8-bit",
    ),
    "poisson": NoisePreset(
        0.02,
        "Poisson noise on the projections, {level:.3g} of their grey range for one electron",
        "paper 000, section 6 and Table 6: lambda 0.02",
    ),
    "mixture": NoisePreset(
        0.2,
        "Gaussian and Poisson noise on the projections in equal parts, sigma {level:.3g} of their grey range",
        "paper 000, section 6 and Table 6",
    ),
    "white": NoisePreset(
        0.25,
        "voxel-independent Gaussian noise on the reconstruction at SNR {level:.3g}",
        "the assumption behind blind spots (papers 000 and 001); no microscope makes it",
    ),
}  # fmt: skip
"""Name -> noise model. "white" acts on volumes, all others on projections."""

WEDGE_LEVELS: Final = {"moderate": 70.0, "standard": 60.0, "severe": 40.0, "extreme": 30.0}
"""Tilt ranges (± degrees) of paper 000, Table 3; steps of 2 degrees."""


def noise_level(noise: str, level: float | None) -> float:
    """`level`, or the preset's own where it is None; InputError for an unknown preset or a level that is not
    positive."""
    if noise not in PRESETS:
        raise InputError(f"noise '{noise}' is unknown; choose one of {', '.join(PRESETS)}")
    level = PRESETS[noise].default_level if level is None else float(level)
    if not 0 < level < np.inf:
        raise InputError(f"noise level {level:g}: give a positive number ({PRESETS[noise].source})")
    return level


def signal_to_noise(clean: np.ndarray, noisy: np.ndarray) -> float:
    """Variance of the clean data over the variance of the noise, over the whole array (paper 004's tilt-series SNR)."""
    return float(np.var(clean, dtype=np.float64) / np.var(noisy - clean, dtype=np.float64))


def add_gaussian(clean: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """`clean` plus independent Gaussian noise of one variance, var(clean) / snr; float32, same shape.

    Raises InputError where `clean` is constant.
    """
    if clean.min() == clean.max():
        raise InputError("clean data: constant, so a signal-to-noise ratio is undefined; give data with structure")
    sigma = np.sqrt(np.var(clean, dtype=np.float64) / snr)
    return clean + np.float32(sigma) * rng.standard_normal(clean.shape, dtype=np.float32)


def add_projection_noise(clean: np.ndarray, noise: str, level: float, rng: np.random.Generator) -> np.ndarray:
    """A clean tilt series (tilt, y, x) with noise that is independent between pixels and tilts; float32, same shape.

    The models, with g the clean grey value scaled to [0, 1]:

    - "ddw": Gaussian, one variance for the series, so that var(clean) / var(noise) = level.
    - "awgn": Gaussian, sigma = level.
    - "poisson": paper 000 gives lambda = 0.02 and no formula. Here lambda is the grey value that one electron
      makes. The detector counts what the specimen lets through, 1 - g, so a pixel reads 1 - lambda *
      Poisson((1 - g) / lambda): at 0.02, 50 electrons in the clearest pixel. The mean stays g, the variance
      is lambda (1 - g), largest in ice.
    - "mixture": the sum of both, each weighted by 1/sqrt(2), with sigma = level and lambda = level**2 / 2
      (at 0.2 the paper's 0.2 and 0.02). The variance is the mean of the two; the paper says only that it is
      comparable.
    """
    if noise == "ddw":
        return add_gaussian(clean, level, rng)
    low, high = float(clean.min()), float(clean.max())
    if not high > low:
        raise InputError(
            "tilt series: constant, so noise relative to its grey range is undefined; give a specimen with structure"
        )
    if noise == "awgn":
        error = level * rng.standard_normal(clean.shape, dtype=np.float32)
    elif noise == "poisson":
        error = _counting_error((clean - low) / (high - low), level, rng)
    elif noise == "mixture":
        error = level * rng.standard_normal(clean.shape, dtype=np.float32)
        error = (error + _counting_error((clean - low) / (high - low), level**2 / 2, rng)) / np.sqrt(2)
    else:
        raise InputError(f"noise '{noise}' does not act on projections; choose ddw, awgn, poisson or mixture")
    return (clean + (high - low) * error).astype(np.float32)


def _counting_error(grey: np.ndarray, per_electron: float, rng: np.random.Generator) -> np.ndarray:
    """Error of the grey values (scaled to [0, 1]) when the electrons that pass, 1 - grey, are counted."""
    passing = np.clip(1 - grey, 0, 1)
    return passing - per_electron * rng.poisson(passing / per_electron)
