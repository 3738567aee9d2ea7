"""Lipid bilayers and gold beads: the distance of voxels from a surface, and density as a function of that distance."""

from typing import Final

import numpy as np

LEAFLET: Final = 20.0
"""Å from a bilayer's middle to the head-group layer of either leaflet."""
LEAFLET_WIDTH: Final = 8.0
"""Å; standard deviation of one head-group layer."""
MEMBRANE_HALF_THICKNESS: Final = 30.0
"""Å on either side of the bilayer's middle that count as membrane in masks and labels."""
MEMBRANE_DENSITY: Final = 0.7
"""Peak density of a leaflet; the interior of protein is 1."""
GOLD_DENSITY: Final = 6.0
"""Density of gold; the interior of protein is 1. Real gold scatters more strongly still. The value is bounded
so that a few beads stand out, streak and halo as real ones do, without ruling the variance that training and
scores see."""


def bilayer_density(distance: np.ndarray) -> np.ndarray:
    """Density of a bilayer at a signed distance (Å) from its middle: two Gaussian layers of head groups, and
    between them acyl chains, which scatter about as vitreous ice does."""
    inner, outer = (np.exp(-0.5 * ((distance + side) / LEAFLET_WIDTH) ** 2) for side in (LEAFLET, -LEAFLET))
    return (MEMBRANE_DENSITY * (inner + outer)).astype(np.float32)


def gold_density(distance: np.ndarray, voxel_size: float) -> np.ndarray:
    """Density of gold at a signed distance (Å, negative inside) from a bead's surface; the edge is one voxel wide."""
    return (GOLD_DENSITY * np.clip(0.5 - distance / voxel_size, 0, 1)).astype(np.float32)


def _offsets(region: tuple[slice, ...], centre: np.ndarray) -> tuple[np.ndarray, ...]:
    """Open grids (z, y, x) of the offsets from `centre`, in voxels, for a region of a volume."""
    return np.meshgrid(*(np.arange(s.start, s.stop) - c for s, c in zip(region, centre, strict=True)),
                       indexing="ij", sparse=True)  # fmt: skip


def plane_distance(region: tuple[slice, ...], centre: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Signed distance in voxels of a region's voxels from the plane through `centre` with unit `normal`."""
    z, y, x = _offsets(region, centre)
    return normal[0] * z + normal[1] * y + normal[2] * x


def ellipsoid_distance(
    region: tuple[slice, ...], centre: np.ndarray, semi_axes: np.ndarray, rotation: np.ndarray
) -> np.ndarray:
    """Signed distance in voxels (negative inside) from an ellipsoid whose axes are the columns of `rotation`.

    First order in the distance, exact for a sphere; for axes that differ by 1.5 the error within 3 voxels of
    the surface stays below a third of a voxel.
    """
    offsets = _offsets(region, centre)
    along = [sum(rotation[i, k] * offsets[i] for i in range(3)) for k in range(3)]
    level = np.sqrt(sum((p / a) ** 2 for p, a in zip(along, semi_axes, strict=True)))
    slope = np.sqrt(sum((p / a**2) ** 2 for p, a in zip(along, semi_axes, strict=True)))
    return np.where(level > 1e-3, (level - 1) * level / np.maximum(slope, 1e-9), -semi_axes.min())
