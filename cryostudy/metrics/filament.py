"""How well a filament stands out in a tomogram, and its axial repeat: for tubes such as microtubules.

All masks are found on the raw volume and used unchanged on every restored one, so that no restoration draws its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cryostudy.errors import InputError

Volume = NDArray[Any]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Filament:
    """A straight filament in a volume (z, y, x) that runs roughly along y.

    `axis`: unit vector (z, y, x). `section`: mean along the axis, (z, x) at mid y, NaN outside. `wall`: bool mask
    (z, y, x) of the bright wall in that mean. `background`: boxes of 24 voxels far from it and from gold beads.
    """

    axis: NDArray[np.float64]
    section: NDArray[np.float64]
    wall: NDArray[np.bool_]
    background: list[Box]


def find_filament(volume: Volume, *, side: int = 24, away: int = 8) -> Filament:
    """Find the filament, its wall and its surroundings in a raw volume (z, y, x), protein bright.

    The axis is the direction with the most power in the plane across it (a long object's transform lies there). The
    wall is what rises above half of the maximum when the volume is averaged along the axis, some hundred voxels, where
    little noise is left. `side` and `away`: of the background boxes, and their least distance from the wall, voxels.

    Raises:
        InputError: no wall, or no background, was found.
    """
    axis = filament_axis(volume)
    section, z, x = along_axis(volume, axis)
    middle = np.nanmedian(section)
    filled = np.where(np.isnan(section), middle, section)
    bright = filled > middle + 0.5 * (np.nanpercentile(section, 99.5) - middle)
    labels, count = ndimage.label(ndimage.binary_dilation(bright, iterations=2))
    if count == 0:
        raise InputError("find_filament: nothing runs along y in this volume; give one with a filament")
    bright &= labels == 1 + np.argmax(ndimage.sum(bright, labels, range(1, count + 1)))
    far = ndimage.distance_transform_edt(~bright)[z, x] > away
    smooth = ndimage.gaussian_filter(np.asarray(volume, np.float32), 2.0)
    deviation = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    far &= ~ndimage.binary_dilation(smooth < np.median(smooth) - 4 * deviation, iterations=4)  # gold
    sides = [min(side, n) for n in volume.shape]
    places = [range(0, n - s + 1, max(s // 6, 1)) for n, s in zip(volume.shape, sides, strict=True)]
    corners = [(a, b, c) for a in places[0] for b in places[1] for c in places[2]]
    boxes = [(slice(a, a + sides[0]), slice(b, b + sides[1]), slice(c, c + sides[2])) for a, b, c in corners]
    boxes = [box for box in boxes if far[box].all()]
    if not boxes:
        raise InputError(f"find_filament: no background box of {side} voxels beside the filament; give a smaller side")
    return Filament(axis, section, bright[z, x], boxes)


def filament_axis(volume: Volume, *, largest: float = 40.0) -> NDArray[np.float64]:
    """Unit vector (z, y, x) of a filament within `largest` degrees of y in the xy plane and 10 degrees out of it."""
    power = np.abs(np.fft.fftn(volume - volume.mean())) ** 2
    grid = np.meshgrid(*[np.fft.fftfreq(n) for n in volume.shape], indexing="ij")
    radius = np.sqrt(sum(f**2 for f in grid))
    inside = (radius > 0.04) & (radius < 0.3)
    power, axes = power[inside], [f[inside] for f in grid]
    best = (0.0, 0.0)
    for span_xy, span_z, step_xy, step_z in ((largest, 10.0, 1.0, 2.0), (1.5, 2.0, 0.25, 0.5)):
        found = []
        for turn in best[0] + np.arange(-span_xy, span_xy + 1e-9, step_xy):
            for rise in best[1] + np.arange(-span_z, span_z + 1e-9, step_z):
                axis = direction(turn, rise)
                near = np.abs(sum(a * f for a, f in zip(axis, axes, strict=True))) < 0.0025
                found.append((float(power[near].mean()) if near.any() else 0.0, float(turn), float(rise)))
        best = max(found)[1:]
    return direction(*best)


def direction(turn: float, rise: float) -> NDArray[np.float64]:
    """Unit vector (z, y, x) `turn` degrees from y towards x and `rise` degrees out of the xy plane."""
    t, r = np.deg2rad((turn, rise))
    return np.array([np.sin(r), np.cos(r) * np.cos(t), np.cos(r) * np.sin(t)])


def along_axis(
    volume: Volume, axis: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Mean along an axis: the section (z, x), and the row and column of it that each voxel belongs to.

    Rows and columns that hold fewer voxels than a quarter of the longest line are NaN.
    """
    z, y, x = np.indices(volume.shape)
    y = y - (volume.shape[1] - 1) / 2
    row = np.rint(z - y * axis[0] / axis[1]).astype(np.int64)
    column = np.rint(x - y * axis[2] / axis[1]).astype(np.int64)
    row, column = row - row.min(), column - column.min()
    shape = (row.max() + 1, column.max() + 1)
    flat = np.ravel_multi_index((row, column), shape).ravel()
    count = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(flat, np.asarray(volume, np.float64).ravel(), shape[0] * shape[1]).reshape(shape)
    return np.where(count > volume.shape[1] / 4, total / np.maximum(count, 1), np.nan), row, column


def wall_contrast(volume: Volume, filament: Filament) -> float:
    """Mean of the wall minus that of the background, over the noise in the background.

    The noise is the median, over the background boxes, of the standard deviation within a box.
    """
    deviations = [volume[box].std() for box in filament.background]
    background = np.mean([volume[box].mean() for box in filament.background])
    return float((volume[filament.wall].mean() - background) / np.median(deviations))


def axial_spectrum(volume: Volume, axis: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power against the frequency along an axis: (cycles per voxel, mean power).

    A slab 0.005 cycles per voxel thick across the axis, within 0.15 cycles per voxel of it. A repeat along the filament
    is a peak, its layer line.
    """
    power = np.abs(np.fft.fftn(volume - volume.mean())) ** 2
    grid = np.meshgrid(*[np.fft.fftfreq(n) for n in volume.shape], indexing="ij")
    along = sum(a * f for a, f in zip(axis, grid, strict=True))
    across = np.sqrt(np.maximum(sum(f**2 for f in grid) - along**2, 0))
    along, power = np.abs(along[across < 0.15]), power[across < 0.15]
    frequency = np.arange(0.02, 0.45, 0.001)
    return frequency, np.array([power[np.abs(along - f) < 0.0025].mean() for f in frequency])


def layer_line(volume: Volume, axis: NDArray[np.float64], repeat: float) -> float:
    """Peak of the axial spectrum near 1 / `repeat` (voxels) over its mean 0.012 to 0.04 cycles per voxel away."""
    frequency, power = axial_spectrum(volume, axis)
    near = np.flatnonzero(np.abs(frequency - 1 / repeat) < 0.015)
    peak = near[power[near].argmax()]
    distance = np.abs(frequency - frequency[peak])
    return float(power[peak] / power[(distance > 0.012) & (distance < 0.04)].mean())
