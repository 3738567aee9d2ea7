"""Tilt angles: checking them, what range of directions they measure, and how much of it each tilt stands for.

A projection at tilt θ measures the Fourier plane through the tilt axis at θ (central slice theorem; Crowther,
DeRosier and Klug 1970, Proc. R. Soc. Lond. A 317:319), and θ + 180° the same plane. All here is modulo 180°.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from cryostudy.errors import InputError

Angles = Sequence[float] | np.ndarray | Tensor

_WIDE_GAP = 3.0  # in median steps: a wider gap within the range was not measured
_CLOSED_GAP = 1.5  # in steps of the list there: a gap through ±90° no wider than this closes the full circle


def check_angles(angles: Angles, n_tilts: int | None = None) -> np.ndarray:
    """The tilt angles in degrees as a 1-D float64 array.

    Raises InputError for a scalar, an empty list, angles that are not finite, or a count other than ``n_tilts``.
    """
    if isinstance(angles, Tensor):
        angles = angles.detach().cpu().numpy()
    checked = np.asarray(angles, dtype=np.float64)
    if checked.ndim != 1 or checked.size == 0:
        raise InputError("angles: give the list of tilt angles in degrees, one for each tilt")
    if not np.isfinite(checked).all():
        raise InputError(f"angles: angle {int(np.argmin(np.isfinite(checked)))} is not a finite number; mend it")
    if n_tilts is not None and checked.size != n_tilts:
        raise InputError(
            f"angles: {checked.size} angles for a tilt series of {n_tilts} tilts; give one angle for each tilt"
        )
    return checked


def _steps(angles: Angles) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Distinct angles in [-90, 90) in ascending order, the gap after each (the last leads through ±90°), whether
    each gap was measured, the position of every given angle among the distinct ones, and the median step."""
    folded = np.round(np.mod(check_angles(angles) + 90, 180) - 90, 6)
    distinct, position = np.unique(folded, return_inverse=True)
    gaps = np.diff(distinct, append=distinct[0] + 180)
    step = float(np.median(gaps[:-1])) if len(gaps) > 1 else 180.0
    measured = gaps <= _WIDE_GAP * step
    measured[-1] = len(gaps) > 2 and gaps[-1] <= _CLOSED_GAP * max(step, gaps[0], gaps[-2])
    return distinct, gaps, measured, position, step


def measured_ranges(angles: Angles) -> list[tuple[float, float]]:
    """Ranges of direction (degrees, from <= to, to - from <= 180) that a list of tilt angles measures.

    A gap in the list wider than 3 times the median step is not measured; nor is the one through ±90° unless it
    is at most 1.5 steps wide (median step, or step at either end of the list), as in a full 180° series, which
    gives one range 180° wide. Two angles are the ends of one range. Raises InputError as ``check_angles`` does.
    """
    distinct, _, measured, _, _ = _steps(angles)
    if measured.all():
        return [(-90.0, 90.0)]
    ends = np.flatnonzero(~measured)
    starts = (np.roll(ends, 1) + 1) % len(distinct)
    ranges = zip(distinct[starts], distinct[ends], strict=True)
    return [(float(a), float(b if b >= a else b + 180)) for a, b in ranges]


def tilt_shares(angles: Angles) -> np.ndarray:
    """Angle in radians that each tilt stands for in a back-projection, so that unequal steps do no harm.

    Half the distance to either neighbour, or half a median step on the side of an unmeasured gap. Tilts recorded
    at the same angle share alike. The shares of a full series sum to π. A single tilt stands for π.
    """
    _, gaps, measured, position, step = _steps(angles)
    half = np.where(measured, gaps, step) / 2
    share = half + np.roll(half, 1)
    return np.deg2rad((share / np.bincount(position))[position])


def wedge_fraction(angles: Angles) -> float:
    """Share of all directions perpendicular to the tilt axis, 0 to 1, that a list of tilt angles leaves out.

    One third for ±60°. It is the volume fraction of the missing wedge in a sphere around zero frequency.
    """
    return 1 - sum(b - a for a, b in measured_ranges(angles)) / 180
