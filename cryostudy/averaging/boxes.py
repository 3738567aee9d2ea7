"""Boxes around particles, and masks. The middle of a box of any side is its voxel side // 2, along each axis."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from cryostudy.errors import InputError
from cryostudy.fourier import frequency_grid
from cryostudy.metrics.fsc import FSC, fsc
from cryostudy.metrics.scaling import Volume, same_shape
from cryostudy.poses import check_points

MARGIN = 4  # voxels cut around a box for its shift by a fraction of a voxel, whose ends would meet
EDGE = 3.0  # voxels over which masks fall from 1 to 0

Boxes = NDArray[np.float32]


def fits(shape: tuple[int, ...], positions: ArrayLike, side: int) -> NDArray[np.bool_]:
    """Which boxes of `side` voxels around positions (n, 3), voxels (z, y, x), lie wholly in a volume: (n,)."""
    start = np.round(check_points(positions, "positions")) - side // 2
    return np.all((start >= 0) & (start + side <= np.array(shape)), axis=1)


def extract(tomogram: Volume, positions: ArrayLike, side: int) -> Boxes:
    """Boxes (n, side, side, side) of a tomogram (z, y, x) with the positions in their middles.

    A box is cut at whole voxels and moved by what is left with a Fourier shift, which keeps the spectrum of noise, as
    interpolation would not. Where a box touches the border the margin for that is mirrored.

    Args:
        positions: (n, 3), voxels (z, y, x). A particle whose box leaves the tomogram is refused, not filled up: what
            is made up would be averaged as if measured. :func:`fits` says which to leave out.
    Raises:
        InputError: a box does not fit, the tomogram is not 3-D, or positions are not finite.
    """
    points = check_points(positions, "positions")
    if tomogram.ndim != 3 or side < 2:
        raise InputError(f"extract: shape {tomogram.shape}, side {side}; give a tomogram (z, y, x), boxes of 2 or more")
    outside = np.flatnonzero(~fits(tomogram.shape, points, side))
    if outside.size:
        at = ", ".join(f"{p:.1f}" for p in points[outside[0]])
        raise InputError(
            f"positions: {outside.size} of {len(points)} boxes of {side} voxels leave the tomogram {tomogram.shape}, "
            f"the first at ({at}); leave out the particles for which `fits` is False, or give a smaller side"
        )
    padded = np.pad(np.asarray(tomogram, np.float32), MARGIN, mode="symmetric")
    whole = np.round(points).astype(int)
    rest = torch.as_tensor(points - whole, dtype=torch.float32)
    grid = frequency_grid((side + 2 * MARGIN,) * 3)
    boxes = np.empty((len(points), side, side, side), np.float32)
    for k, corner in enumerate(whole - side // 2):  # of the margin, in the padded volume
        cut = torch.from_numpy(padded[tuple(slice(c, c + side + 2 * MARGIN) for c in corner)].copy())
        phase = sum((s * f for s, f in zip(rest[k], grid, strict=True)), torch.zeros(()))
        moved = torch.fft.irfftn(torch.fft.rfftn(cut) * torch.exp(2j * torch.pi * phase), s=cut.shape)
        boxes[k] = moved[(slice(MARGIN, -MARGIN),) * 3].numpy()
    return boxes


def in_box(density: Volume, side: int) -> NDArray[np.float32]:
    """A particle's map, whose centre is (n - 1) / 2 as in a specimen, with that centre in the middle of a box.

    Zero beyond the map; a map larger than the box is cut.
    """
    offset = (np.array(density.shape) - 1) / 2 - side // 2
    return ndimage.affine_transform(density, np.ones(3), offset, (side,) * 3, order=3).astype(np.float32)


def soft_sphere(side: int, radius: float, edge: float = EDGE) -> NDArray[np.float32]:
    """1 within `radius` voxels of a box's middle, falling as a cosine to 0 over `edge` voxels."""
    axis = np.arange(side) - side // 2
    away = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return _falling(away - radius, edge)


def soft_mask(density: Volume, level: float, *, grow: float = 2.0, edge: float = EDGE) -> NDArray[np.float32]:
    """1 within `grow` voxels of where a density (z, y, x) exceeds `level`, falling as a cosine to 0 over `edge` voxels.

    Raises:
        InputError: nothing exceeds the level.
    Source: `jones2026`, Section 2.2.3: a soft mask contoured to the density.
    """
    inside = np.asarray(density) > level
    if not inside.any():
        raise InputError(f"soft_mask: no voxel exceeds the level {level}; give a lower one")
    return _falling(ndimage.distance_transform_edt(~inside) - grow, edge)


def _falling(distance: NDArray[np.floating], edge: float) -> NDArray[np.float32]:
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(distance / max(edge, 1e-6), 0, 1))).astype(np.float32)


def masked_fsc(a: Volume, b: Volume, mask: Volume, *, voxel_size: float = 0.0) -> FSC:
    """Fourier shell correlation (:func:`cryostudy.metrics.fsc`) of two volumes under one soft mask.

    Their means under the mask go first: a mask times a constant is alike in both. Of half-maps from restored volumes
    it is self-consistency, not truth: show the one against the true density beside it.
    """
    same_shape(a, b)
    same_shape(a, mask)
    weight = np.asarray(mask, np.float64)
    parts = [(v - (v * weight).sum() / weight.sum()) * weight for v in (np.asarray(a, np.float64), np.asarray(b))]
    return fsc(parts[0], parts[1], voxel_size=voxel_size)
