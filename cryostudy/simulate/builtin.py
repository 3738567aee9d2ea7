"""Macromolecule-like particles made in code, for machines without the registry's maps.

They imitate size, symmetry and contrast of protein complexes and are not models of any real one. Each is a
union of soft blobs: an asymmetric unit, repeated by the operations of its point group, with density 1 inside
and 0 outside.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

VOXEL_SIZE: Final = 10.0
"""Å; the voxel size of every built-in map."""


_WIDTH: Final = np.log(2 / np.log(2))


def symmetry_operations(group: str) -> np.ndarray:
    """Rotations of a point group as matrices on (z, y, x) vectors, shape (order, 3, 3).

    `group` is one of scipy's names (C1, C6, D7, T, O, I ...). The main axis of C and D groups is z, and the
    first two-fold axis of D groups is x.
    """
    matrices = Rotation.create_group(group).as_matrix()
    return np.ascontiguousarray(matrices[:, ::-1, ::-1])


def _union(centres: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    """Map of soft blobs at `centres` ((n, 3), (z, y, x) in Å) with the radii given in Å; odd cube.

    The centre of mass comes to lie at the cube's centre. 1 - exp(-sum of Gaussians) keeps overlapping blobs
    at one density, as in packed protein, and is smooth enough at 10 Å voxels for spline rotation.
    """
    radii = np.broadcast_to(np.asarray(radii, float), len(centres))
    for _ in range(2):
        density = _blobs(centres, radii)
        centres = centres - (np.array(center_of_mass(density)) - density.shape[0] // 2) * VOXEL_SIZE
    return _blobs(centres, radii)


def _blobs(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    half = int(np.ceil((np.linalg.norm(centres, axis=1) + 2.6 * radii).max() / VOXEL_SIZE)) + 1
    axis = np.arange(-half, half + 1) * VOXEL_SIZE
    total = np.zeros((axis.size,) * 3)
    for (z, y, x), radius in zip(centres, radii, strict=True):
        # A Gaussian of this width makes 1 - exp(-2 g) fall to a half at the blob's radius.
        gz, gy, gx = (np.exp(-_WIDTH * ((axis - c) / radius) ** 2) for c in (z, y, x))
        total += 2 * gz[:, None, None] * gy[:, None] * gx
    return (1 - np.exp(-total)).astype(np.float32)


def _symmetric(group: str, unit: list[tuple[float, float, float]], radii: list[float]) -> np.ndarray:
    """Union of an asymmetric unit's blobs over all operations of a point group."""
    operations = symmetry_operations(group)
    centres = np.einsum("kij,nj->kni", operations, np.asarray(unit, float)).reshape(-1, 3)
    return _union(centres, np.tile(radii, len(operations)))


def _globule() -> np.ndarray:
    centres = np.array(
        [
            (-30, -12, 4),
            (-8, 16, -22),
            (2, -20, -14),
            (12, 8, 20),
            (28, -2, -6),
            (-14, 14, 22),
            (34, 24, 10),
            (-24, -32, 20),
        ],
        float,
    )
    return _union(centres, 20.5)


def _two_lobes() -> np.ndarray:
    rng = np.random.default_rng(7)
    lobes = [((-32, 0, 0), (46, 92, 74), 44), ((58, 14, -8), (32, 78, 50), 24)]
    centres, radii = [], []
    for centre, axes, count in lobes:
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        centres.append(directions * rng.uniform(size=(count, 1)) ** (1 / 3) * axes + centre)
        radii.append(rng.uniform(17, 26, count))
    return _union(np.concatenate(centres), np.concatenate(radii))


def _rod() -> np.ndarray:
    index = np.arange(36) - 17.5  # 5 whole turns, so that the centre of mass lies on the axis
    large, small = (
        np.stack([ROD_RISE * index + z, radius * np.sin(turn), radius * np.cos(turn)], axis=1)
        for z, radius, turn in ((0, 26, np.deg2rad(ROD_TWIST * index)), (14, 42, np.deg2rad(ROD_TWIST * index + 12)))
    )
    return _union(np.concatenate([large, small]), np.repeat([18.0, 14.0], 36))


ROD_RISE: Final = 7.0
"""Å along z from one subunit of the helical rod to the next."""
ROD_TWIST: Final = 50.0
"""Degrees about z (from x towards y) from one subunit of the helical rod to the next."""

BUILT_IN: Final[dict[str, tuple[str, Callable[[], np.ndarray]]]] = {
    "C1 globule": ("C1", _globule),
    "C1 two-lobed": ("C1", _two_lobes),
    "D2 tetramer": ("D2", lambda: _symmetric("D2", [(26, 18, 46), (34, 42, 16), (12, 46, 66)], [23, 18, 16])),
    "C3 trimer": ("C3", lambda: _symmetric("C3", [(-66, 0, 38), (-38, 14, 24), (0, 0, 15), (36, 6, 14), (68, -8, 20)],
                                           [22, 19, 16, 15, 17])),
    "C6 ring": ("C6", lambda: _symmetric("C6", [(-16, 0, 52), (18, 14, 46), (28, -8, 72)], [22, 18, 15])),
    "D7 barrel": ("D7", lambda: _symmetric("D7", [(22, 0, 56), (54, 14, 50), (78, 2, 36)], [21, 18, 16])),
    "octahedral shell": ("O", lambda: _symmetric("O", [(78, 46, 20), (96, 26, 38)], [23, 15])),
    "helical rod": ("C1", _rod),
}  # fmt: skip
"""Name -> (point group, maker). The rod is helical (ROD_RISE, ROD_TWIST); finite as it is, its point group is C1."""


def built_in_density(name: str) -> np.ndarray:
    """One built-in particle: float32 cube (z, y, x) of odd side, 10 Å voxels, 0 outside, about 1 inside."""
    return BUILT_IN[name][1]()
