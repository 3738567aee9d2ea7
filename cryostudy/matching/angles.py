"""Orientations to search: a uniform grid of rotations, less those that a particle's symmetry makes alike.

A rotation R takes the particle's own frame to the tomogram's, both (z, y, x); R and R S look the same for every S of
the particle's point group, whose main axis is the z of its own frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryostudy.errors import InputError
from cryostudy.poses import check_symmetry

Matrices = NDArray[np.float64]
COARSEST, FINEST = 90.0, 0.5  # degrees
PSI = 1.533751168755204288118041  # the positive root of psi^4 = psi + 4


def rotations(step: float, symmetry: str = "C1") -> Matrices:
    """Rotation matrices (n, 3, 3) for (z, y, x) vectors, uniform over all rotations that look different.

    Super-Fibonacci spirals (Alexa 2022, CVPR, eq. 6): n quaternions on two spirals whose turns per point are
    1/sqrt(2) and 1/psi. There are as many as cubes of side `step` fill the group (volume 8 pi^2), and of each set
    {R S} the one nearest to the identity is kept, so that their number falls by the order of the point group.

    Args:
        step: degrees between neighbours. A random rotation has one of the grid within about that.
        symmetry: C1, C2 ..., D2, D3 ..., T, O or I.
    Raises:
        InputError: a step out of range or an unknown symmetry.
    """
    if not FINEST <= step <= COARSEST:
        raise InputError(f"angles step {step:g}: give {FINEST:g} to {COARSEST:g} degrees")
    group = Rotation.from_matrix(check_symmetry(symmetry)[:, ::-1, ::-1]).as_quat()
    count = int(np.ceil(8 * np.pi**2 / np.deg2rad(step) ** 3))
    s = np.arange(count) + 0.5
    r, rest = np.sqrt(s / count), np.sqrt(1 - s / count)
    first, second = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / PSI
    quaternions = np.stack([r * np.sin(first), r * np.cos(first), rest * np.sin(second), rest * np.cos(second)], 1)
    # The scalar part of the product of q and s, cos of half the angle: the larger, the nearer to the identity. It is
    # the scalar product of q with the inverse of s.
    near = np.abs(quaternions @ (group * [-1, -1, -1, 1]).T)
    kept = quaternions[np.abs(quaternions[:, 3]) >= near.max(1) - 1e-12]
    return np.ascontiguousarray(Rotation.from_quat(kept).as_matrix()[:, ::-1, ::-1])
