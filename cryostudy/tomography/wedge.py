"""The missing wedge: which Fourier voxels a tilt series measures, evaluated exactly on the Fourier grid."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.fourier import Device, frequency_grid
from cryostudy.tomography.geometry import Angles, measured_ranges

_EDGE = 1e-4  # degrees by which a range is widened, so that rounding never drops a voxel that lies on its edge


def wedge_mask(
    shape: Sequence[int],
    angles: Angles,
    *,
    rotation: np.ndarray | Tensor | None = None,
    rfft: bool = False,
    device: Device = None,
) -> Tensor:
    """Bool mask, True where a tilt series measures the Fourier transform of a box of ``shape`` (z, y, x).

    angles: tilt angles in degrees. By the central slice theorem the tilt θ of ``project`` measures the plane
    kz cos θ = kx sin θ (cycles per voxel, so unequal sides are right), hence a voxel counts as measured when its
    direction atan(kz / kx) lies in ``measured_ranges(angles)``: from the first to the last tilt, without gaps
    wider than 3 median steps. Zero frequency and the ky axis are always measured.

    rotation: matrices (3, 3) or (n, 3, 3) that turn (z, y, x) vectors. The mask then is that of the specimen
    turned by the matrix after it was recorded, as for a rotated sub-tomogram: the two planes that bound each
    range are turned, nothing is interpolated (DeepDeWedge rotates a voxel mask by a spline instead). The layout
    is ``fftn``'s, or ``rfftn``'s with ``rfft=True``; a Nyquist voxel, which stands for both signs of its
    frequency, is measured if either is, so that Friedel symmetry holds exactly.

    Returns (z, y, x) or (n, z, y, x) on ``device``. Raises InputError for a shape that is not 3-D, unusable
    angles, or a rotation that is not orthonormal.
    """
    if len(shape) != 3:
        raise InputError(f"shape: {tuple(shape)} given; a wedge mask needs the three sides (z, y, x)")
    turn = _check_rotation(rotation)
    grid = frequency_grid(shape, rfft=rfft, device=device)
    grid = tuple(torch.where(axis == 0.5, -axis, axis) for axis in grid)  # one sign in either layout
    grids = [grid]
    if any(n % 2 == 0 for n in shape):
        grids.append(tuple(torch.where(axis == -0.5, -axis, axis) for axis in grid))
    mask = torch.zeros((1,) * (turn.ndim + 1), dtype=torch.bool, device=device)
    for start, stop in measured_ranges(angles):
        if stop - start >= 180:
            mask = ~mask
            break
        lower, upper = (np.deg2rad(a) for a in (start - _EDGE, stop + _EDGE))
        # In the range when on the inner side of both bounding planes, or (Friedel) on the outer side of both.
        for axes in grids:
            above = _distance(turn @ torch.tensor([np.cos(lower), 0, -np.sin(lower)]), axes)
            below = _distance(turn @ torch.tensor([-np.cos(upper), 0, np.sin(upper)]), axes)
            mask = mask | (above * below >= 0)
    sides = torch.broadcast_shapes(*(axis.shape for axis in grid))
    return mask.expand(*turn.shape[:-2], *sides).contiguous()


def _check_rotation(rotation: np.ndarray | Tensor | None) -> Tensor:
    if rotation is None:
        return torch.eye(3, dtype=torch.float64)
    turn = torch.as_tensor(rotation).detach().double().cpu()
    if turn.ndim not in (2, 3) or turn.shape[-2:] != (3, 3):
        raise InputError(f"rotation: shape {tuple(turn.shape)} given; give matrices (3, 3) or (n, 3, 3)")
    if not torch.allclose(turn @ turn.mT, torch.eye(3, dtype=turn.dtype), atol=1e-3):
        raise InputError("rotation: not an orthonormal matrix; give rotations of (z, y, x) vectors")
    return turn


def _distance(normal: Tensor, axes: Sequence[Tensor]) -> Tensor:
    """Signed distance of every Fourier voxel from planes through zero: normal (3,) or (n, 3)."""
    distance = torch.zeros((), device=axes[0].device)
    for component, axis in zip(normal.unbind(-1), axes, strict=True):
        if component.any():  # a wedge that is not rotated does not depend on ky: keep that axis short
            distance = distance + component.float().to(axis.device)[..., None, None, None] * axis
    return distance
