"""Averages of boxes at given poses, each Fourier voxel over the boxes that measured it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform

from cryostudy.errors import InputError
from cryostudy.poses import check_points, check_rotations
from cryostudy.tomography import wedge_mask

Boxes = NDArray[np.floating]
Tilts = Sequence[float] | NDArray[Any]
Angles = Tilts | Sequence[Tilts] | None
"""Tilt angles in degrees: one list for all boxes, one list a box, or None where the wedges are filled or none is."""
Sums = tuple[NDArray[np.complex128], NDArray[np.float64]]


def turned(volume: Boxes, rotation: NDArray[np.floating], shift: ArrayLike = (0.0, 0.0, 0.0)) -> NDArray[np.float32]:
    """What lies at shift + R v from the middle, voxel n // 2, of a volume lies at v in the result (cubic splines)."""
    middle = np.array(volume.shape) // 2
    offset = middle + np.asarray(shift) - rotation @ middle
    return affine_transform(volume, rotation, offset, order=3, mode="nearest").astype(np.float32)


def sums(boxes: Sequence[Boxes] | Boxes, rotations: ArrayLike, angles: Angles, shifts: ArrayLike | None = None) -> Sums:
    """Sum of the boxes' transforms in the particle's frame and, for each Fourier voxel, how many measured it.

    Both are complex and real arrays in fftn layout; those of parts add up to those of the whole. Arguments as for
    :func:`average_boxes`.
    """
    count = len(boxes)
    if count == 0:
        raise InputError("boxes: none given; give at least one sub-tomogram")
    turns = check_rotations(rotations, count, "rotations")
    moves = check_points(np.zeros((count, 3)) if shifts is None else shifts, "shifts")
    total, weight = np.zeros(boxes[0].shape, np.complex128), np.zeros(boxes[0].shape)
    for box, turn, move, tilts in zip(boxes, turns, moves, tilts_of(angles, count), strict=True):
        mask = np.ones(()) if tilts is None else wedge_mask(box.shape, tilts, rotation=turn.T.copy()).numpy()
        total += np.fft.fftn(turned(box, turn, move)) * mask
        weight += mask
    return total, weight


def average_boxes(
    boxes: Sequence[Boxes] | Boxes, rotations: ArrayLike, angles: Angles, shifts: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Boxes (n, side, side, side) turned into the particle's frame and averaged: (side, side, side).

    Each Fourier voxel is averaged over the boxes that measured it, and 0 where none did; plainly where `angles` is
    None.

    Args:
        rotations: (n, 3, 3), take the particle's frame to the box's. angles: tilt angles in degrees of all boxes, or
            a list of them a box. shifts: (n, 3), voxels (z, y, x) from the middle of a box to its particle.
    Raises:
        InputError: no box, or arguments that do not fit.
    """
    total, weight = sums(boxes, rotations, angles, shifts)
    return np.fft.ifftn(total / np.maximum(weight, 1)).real.astype(np.float32)


def tilts_of(angles: Angles, count: int) -> list[tuple[float, ...] | None]:
    """The tilt angles of every box."""
    if angles is None:
        return [None] * count
    if len(angles) and np.ndim(angles[0]) == 0:
        return [tuple(float(a) for a in angles)] * count  # type: ignore[arg-type]
    if len(angles) != count:
        raise InputError(
            f"angles: lists for {len(angles)} boxes, there are {count}; give one list a box or one for all"
        )
    return [tuple(float(a) for a in tilts) for tilts in angles]  # type: ignore[union-attr]
