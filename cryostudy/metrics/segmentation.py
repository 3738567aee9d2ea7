"""How well a mask of membranes agrees with the true one; both bool (z, y, x), lengths in Å.

An empty prediction is a result, not a mistake: Dice, completeness and precision 0, distances infinite. An empty truth
leaves nothing to be scored and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cryostudy.errors import InputError
from cryostudy.metrics.scaling import same_shape

Mask = NDArray[np.bool_]
TOLERANCE = 20.0
"""Å; two voxels of the study's specimens."""


@dataclass(frozen=True)
class SurfaceDistance:
    """Symmetric distance in Å between the surfaces of two masks: mean and 95th percentile, 0 is best."""

    mean: float
    p95: float


@dataclass(frozen=True, eq=False)
class AngularCompleteness:
    """Completeness of a mask by the angle between the true membrane's normal and the beam.

    `edges`: degrees, (bins + 1,), 0 is a membrane across the beam, 90 one along it. `completeness`: (bins,), NaN
    where the truth has no membrane. `voxels`: of the truth, (bins,).
    """

    edges: NDArray[np.float64]
    completeness: NDArray[np.float64]
    voxels: NDArray[np.int64]


def dice(prediction: Mask, truth: Mask) -> float:
    """Twice the common voxels over the sum of both masks' voxels, 0 to 1. Raises InputError as `check_masks` does."""
    check_masks(prediction, truth)
    return float(2 * np.count_nonzero(prediction & truth) / (np.count_nonzero(prediction) + np.count_nonzero(truth)))


def completeness(prediction: Mask, truth: Mask, voxel_size: float, tolerance: float = TOLERANCE) -> float:
    """Fraction of the true mask's voxels within `tolerance` Å of the prediction.

    Raises InputError as `check_masks` does.
    """
    check_masks(prediction, truth, voxel_size, tolerance)
    return float(_near(prediction, voxel_size, tolerance)[truth].mean())


def precision(prediction: Mask, truth: Mask, voxel_size: float, tolerance: float = TOLERANCE) -> float:
    """Fraction of the predicted voxels within `tolerance` Å of the truth; 0 for an empty prediction.

    Raises InputError as `check_masks` does.
    """
    check_masks(prediction, truth, voxel_size, tolerance)
    return float(_near(truth, voxel_size, tolerance)[prediction].mean()) if prediction.any() else 0.0


def surface_distance(prediction: Mask, truth: Mask, voxel_size: float) -> SurfaceDistance:
    """Distance of either mask's surface voxels from the nearest one of the other, in Å.

    The surface is the voxels with one of 6 neighbours outside the mask; where the volume's border cuts a membrane
    there is none. `mean` is that of the two directed means, `p95` the larger of the two directed 95th percentiles.
    Raises InputError as `check_masks` does, and for a truth that fills the volume.
    """
    check_masks(prediction, truth, voxel_size)
    surfaces = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (prediction, truth)]
    if not surfaces[1].any():
        raise InputError("surface_distance: truth fills the volume and has no surface; give a mask of membranes")
    if not surfaces[0].any():
        return SurfaceDistance(np.inf, np.inf)
    to_prediction, to_truth = (ndimage.distance_transform_edt(~surface, sampling=voxel_size) for surface in surfaces)
    directed = (to_truth[surfaces[0]], to_prediction[surfaces[1]])
    return SurfaceDistance(
        float(np.mean([d.mean() for d in directed])), float(max(np.percentile(d, 95) for d in directed))
    )


def completeness_by_angle(
    prediction: Mask,
    truth: Mask,
    voxel_size: float,
    *,
    tolerance: float = TOLERANCE,
    bins: int = 6,
    normal: NDArray[Any] | None = None,
) -> AngularCompleteness:
    """Completeness in equal bins of the angle from the true membrane's normal to the beam (z), 0 to 90 degrees.

    A membrane across the beam has its transform in the missing wedge and vanishes; one along it does not.

    Args:
        normal: (3, z, y, x), the true membrane's normal; by default that of the smoothed truth.
    Raises:
        InputError: as `check_masks` does, fewer than one bin, a normal of another shape.
    """
    check_masks(prediction, truth, voxel_size, tolerance)
    if bins < 1:
        raise InputError(f"completeness_by_angle: {bins} bins; give at least 1")
    if normal is None:
        normal = _normal_of(truth)
    elif normal.shape != (3, *truth.shape):
        raise InputError(
            f"completeness_by_angle: normal {normal.shape}; give (3, z, y, x) with the masks' {truth.shape}"
        )
    angle = np.rad2deg(np.arccos(np.clip(np.abs(normal[0][truth]), 0, 1)))
    edges = np.linspace(0, 90, bins + 1)
    index = np.clip(np.digitize(angle, edges) - 1, 0, bins - 1)
    voxels = np.bincount(index, minlength=bins)
    found = np.bincount(index, _near(prediction, voxel_size, tolerance)[truth], bins)
    return AngularCompleteness(edges, np.where(voxels > 0, found / np.maximum(voxels, 1), np.nan), voxels)


def check_masks(prediction: Mask, truth: Mask, voxel_size: float = 1.0, tolerance: float = 0.0) -> None:
    """Raises InputError for masks that are not bool, not 3-D, of different shapes, or for an empty truth."""
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != np.bool_ or mask.ndim != 3:
            raise InputError(f"{name}: {mask.ndim}-D array of {mask.dtype}; give a bool mask (z, y, x)")
    same_shape(prediction, truth)
    if not truth.any():
        raise InputError("truth: empty mask, nothing to score; give a specimen with membranes")
    if not voxel_size > 0 or not tolerance >= 0:
        raise InputError(f"voxel_size {voxel_size}, tolerance {tolerance}: give a size above 0 and a tolerance in Å")


def _near(mask: Mask, voxel_size: float, tolerance: float) -> Mask:
    """Voxels within `tolerance` Å of a mask; none for an empty one."""
    if not mask.any():
        return np.zeros_like(mask)
    return ndimage.distance_transform_edt(~mask, sampling=voxel_size) <= tolerance + 1e-6


def _normal_of(mask: Mask) -> NDArray[np.float32]:
    """Normal of a mask of sheets, from the Hessian at the scale of their thickness (twice the mean inner depth)."""
    from cryostudy.segmentation.surfaceness import surfaceness

    # A slab of 2h + 1 voxels has depths 1 .. h + 1 .. 1 and the mean (h + 2) / 2 roughly.
    half = max(
        2 * float(ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1, 1:-1][mask].mean()) - 1, 1
    )
    return surfaceness(torch.from_numpy(mask.astype(np.float32)), [half])[1].numpy()
