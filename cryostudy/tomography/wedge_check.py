"""Which directions a tomogram's own spectrum shows as measured, and whether the tilt angles given with it fit.

A reconstruction holds no power where no tilt measured, neither of specimen nor of noise, so that the range can be read
off the volume. Agrees with the tilts of simulated recordings within 2 degrees (-40..40 to -70..70, also one-sided).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryostudy.tomography.geometry import Angles, measured_ranges

SHORTEST, LONGEST = 24, 128  # voxels: a shorter side blurs directions; of longer ones the centre tells enough
BAND, RINGS = (0.08, 0.45), 12  # cycles per voxel across the tilt axis, and radii that are normalised separately
NARROWEST, WIDEST = 40, 176  # degrees, of a range that is looked for
# Power in the wedge as a part of that outside: below CLEAR its edges can be told (0.01 to 0.06 in noisy recordings of
# 32 voxels and more), above VISIBLE there is none.
CLEAR, VISIBLE = 0.08, 0.5
TOLERANCE = 5.0  # degrees
TILT_AXES = ("z", "y", "x")


class Seen(NamedTuple):
    """The measured range, degrees, and the power outside it as a part of that within: 0 a clear wedge, 1 none."""

    start: float
    stop: float
    contrast: float


def seen_range(volume: NDArray[np.floating], axis: int = 1) -> Seen:
    """The range of directions around a tilt axis (1, y) that a volume (z, y, x) shows as measured.

    Directions are atan(kz / kx) around y, as in :func:`cryostudy.tomography.wedge_mask`; atan(kz / ky) around x (axis
    2) and atan(ky / kx) around z (axis 0).
    """
    return _step(*_profile(_log_power(volume), axis))


def check_wedge(volume: NDArray[np.floating], angles: Angles) -> str | None:
    """One sentence when the wedge in a volume (z, y, x) is not that of the tilt angles (degrees); None when it is.

    Ranges that differ by up to `TOLERANCE` degrees on either side pass, and so do volumes whose wedge has no clear
    edge or that have a side below `SHORTEST` voxels. Raises InputError as :func:`measured_ranges` does.
    """
    ranges = measured_ranges(angles)
    if min(volume.shape) < SHORTEST:
        return None
    power = _log_power(volume)
    seen = [_step(*_profile(power, axis)) for axis in range(3)]
    start, stop, contrast = seen[1]
    best = min(range(3), key=lambda axis: seen[axis].contrast)
    if best != 1 and seen[best].contrast < min(CLEAR, contrast / 2):
        return (
            f"its missing wedge looks as if the tilt axis were {TILT_AXES[best]}; turn the volume so that its axes "
            "(z, y, x) are beam, tilt axis and the third"
        )
    closed = len(ranges) == 1 and ranges[0][1] - ranges[0][0] >= 180
    told = "none is missing" if closed else ", ".join(f"{a:.0f}° to {b:.0f}°" for a, b in ranges)
    if contrast > VISIBLE and not closed:
        return f"its spectrum shows no missing wedge, but the tilt angles ({told}) leave one; check them"
    if contrast > CLEAR:
        return None
    wrong = f"its spectrum shows tilts from {start:.0f}° to {stop:.0f}°, but by the tilt angles "
    if closed:
        return f"{wrong}{told}; check them"
    (first, _), (_, last) = ranges[0], ranges[-1]
    apart = max(abs((seen - given + 90) % 180 - 90) for seen, given in ((start, first), (stop, last)))
    return None if apart <= TOLERANCE else f"{wrong}they go from {first:.0f}° to {last:.0f}°; check them and their sign"


def _log_power(volume: NDArray[np.floating]) -> NDArray[np.float32]:
    """Logarithm of the power of the central part, whose faces are faded out: their jumps would fill the wedge."""
    box = volume[tuple(slice((n - min(n, LONGEST)) // 2, (n + min(n, LONGEST)) // 2) for n in volume.shape)]
    box = np.asarray(box, np.float32) - np.float32(box.mean(dtype=np.float64))
    for axis, n in enumerate(box.shape):
        box *= np.hanning(n + 2)[1:-1].astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    power = np.abs(np.fft.fftn(box)) ** 2
    return np.log(power + 1e-20 * power.max())


def _profile(log_power: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power by direction, 180 values from -90 degrees on, and how many Fourier rods along the axis each is made of.

    The geometric mean along the axis, of which a few bright spots are no large part, relative to the upper quartile
    of the same radius, above which it counts as 1.
    """
    first, second = (np.fft.fftfreq(n) for k, n in enumerate(log_power.shape) if k != axis)
    radius = np.hypot(first[:, None], second)
    ring = np.floor((radius - BAND[0]) / (BAND[1] - BAND[0]) * RINGS)
    direction = np.floor(np.degrees(np.arctan2(first[:, None], second)) + 90).astype(int) % 180
    power = np.exp(log_power.mean(axis, dtype=np.float64))
    total, count = np.zeros(180), np.zeros(180)
    for k in range(RINGS):
        rods = ring == k
        if rods.any():
            level = np.minimum(power[rods] / np.quantile(power[rods], 0.75), 1)
            total += np.bincount(direction[rods], level, 180)
            count += np.bincount(direction[rods], minlength=180)
    return total / np.maximum(count, 1), count


def _step(profile: NDArray[np.float64], count: NDArray[np.float64]) -> Seen:
    """The range that parts a profile best, by least squares, into a high level within and a low one outside."""
    ends = np.concatenate([[0], np.cumsum(np.tile(profile * count, 2))])
    numbers = np.concatenate([[0], np.cumsum(np.tile(count, 2))])
    best, found = -1.0, Seen(-90.0, 90.0, 1.0)
    for width in range(NARROWEST, WIDEST + 1):
        within = numbers[width : width + 180] - numbers[:180]
        outside = numbers[180] - within
        high = (ends[width : width + 180] - ends[:180]) / np.maximum(within, 1)
        low = (ends[180] - high * within) / np.maximum(outside, 1)
        score = np.where(high > low, within * outside * (high - low) ** 2, -1)
        k = int(np.argmax(score))
        if score[k] > best:
            start = k - 90 if k + width / 2 <= 180 else k - 270  # the middle of the range lies within ±90°
            best, found = score[k], Seen(float(start), float(start + width), float(max(low[k], 0) / high[k]))
    return found
