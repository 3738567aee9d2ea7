"""Where particles lie and how they are turned: arrays checked once, and how far two orientations are apart.

A rotation takes the particle's own frame to the tomogram: what lies at p from the middle of its map lies at
`position + rotation @ p`, vectors (z, y, x), as in :class:`cryostudy.simulate.Particle`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryostudy.errors import InputError
from cryostudy.simulate.builtin import symmetry_operations

Floats = NDArray[np.float64]


def check_points(points: ArrayLike, name: str) -> Floats:
    """Points (n, 3) in voxels (z, y, x) as float64; an empty list is none. InputError for another shape or NaN."""
    found = _floats(points, name)
    if found.size == 0:
        return np.zeros((0, 3))
    if found.ndim != 2 or found.shape[1] != 3:
        raise InputError(f"{name}: shape {found.shape} given; give points (n, 3) in voxels (z, y, x)")
    return found


def check_rotations(rotations: ArrayLike, count: int, name: str) -> Floats:
    """Matrices (count, 3, 3) as float64. InputError for another shape, NaN or a matrix that is no rotation."""
    found = _floats(rotations, name)
    if count == 0 and found.size == 0:
        return np.zeros((0, 3, 3))
    if found.shape != (count, 3, 3):
        raise InputError(f"{name}: shape {found.shape} given; give one matrix a particle, ({count}, 3, 3)")
    wrong = np.abs(found @ found.mT - np.eye(3)).max((1, 2)) > 1e-3
    wrong |= np.linalg.det(found) < 0
    if wrong.any():
        raise InputError(f"{name}: matrix {int(np.argmax(wrong))} is no rotation; give orthonormal ones without mirror")
    return found


def check_values(values: ArrayLike, count: int, name: str) -> Floats:
    """Numbers (count,) as float64. InputError for another shape or NaN."""
    found = _floats(values, name)
    if found.shape != (count,):
        raise InputError(f"{name}: shape {found.shape} given; give one number a particle, ({count},)")
    return found


def _floats(values: ArrayLike, name: str) -> Floats:
    found: NDArray[Any] = np.asarray(values, np.float64)
    if not np.isfinite(found).all():
        raise InputError(f"{name}: entry {int(np.argmin(np.isfinite(found)))} is not a finite number; leave it out")
    return found


def check_symmetry(symmetry: str) -> Floats:
    """The rotations (order, 3, 3) of a point group, see :func:`cryostudy.simulate.builtin.symmetry_operations`."""
    try:
        return symmetry_operations(symmetry)
    except (ValueError, TypeError):
        raise InputError(f"symmetry {symmetry!r}: unknown; give C1, C6, D7 (any number), T, O or I") from None


def angular_error(found: ArrayLike, true: ArrayLike, symmetry: str = "C1") -> Floats:
    """Angle in degrees (n,) of the rotation that takes each true orientation (n, 3, 3) to the one found.

    The smallest over the operations g of the point group: a particle that looks alike after g looks alike under
    R and R g.

    Raises:
        InputError: shapes differ, a matrix is no rotation, or the group is unknown.
    """
    count = len(np.asarray(true))
    turned, right = check_rotations(found, count, "found rotations"), check_rotations(true, count, "true rotations")
    traces = np.einsum("nji,njk,gki->ng", turned, right, check_symmetry(symmetry))
    # the trace of R_found^T R_true g is 1 + 2 cos of the angle between the two
    return np.rad2deg(np.arccos(np.clip((traces.max(1, initial=-1) - 1) / 2, -1, 1)))
