"""Poses of boxes against a reference: a grid of small rotations and every shift, by what the tilt series measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional as F

from cryostudy.averaging.average import Angles, Boxes, tilts_of, turned
from cryostudy.errors import InputError
from cryostudy.fourier import Device, frequency_grid, multiplicity, radius
from cryostudy.metrics.scaling import Volume, same_shape
from cryostudy.poses import Floats, check_points, check_rotations
from cryostudy.tomography import wedge_mask

VOXELS = 2**22  # of rotated references at once
DIMENSIONS = (-3, -2, -1)


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses of boxes: `rotations` (n, 3, 3) and `shifts` (n, 3) as for `average_boxes`, `scores` (n,) in [-1, 1]."""

    rotations: Floats
    shifts: Floats
    scores: Floats


def small_rotations(step: float, steps: int) -> Floats:
    """Rotations (n, 3, 3) about all axes by at most `steps` times `step` degrees, `step` apart; none comes first.

    Rotation vectors on a cubic lattice within a ball: 7, 33, 123 for 1, 2, 3 steps.
    """
    if not step > 0 or steps < 0:
        raise InputError(
            f"small_rotations: step {step}, steps {steps}; give a positive angle and a count of at least 0"
        )
    axis = np.arange(-steps, steps + 1)
    vectors = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    length = (vectors**2).sum(1)
    order = np.argsort(length, kind="stable")
    kept = vectors[order][length[order] <= steps**2]
    return Rotation.from_rotvec(np.deg2rad(step * kept)).as_matrix()


def align(
    reference: Volume,
    boxes: Sequence[Boxes] | Boxes,
    rotations: ArrayLike,
    angles: Angles,
    turns: Floats,
    *,
    shifts: ArrayLike | None = None,
    reach: float = 2.0,
    cutoff: float = 0.5,
    device: Device = "cpu",
) -> Poses:
    """For each box the best of its pose's neighbours: rotations R @ turn, and all shifts within `reach` voxels.

    The score is the normalised correlation of box and turned reference over the Fourier voxels that the box's tilt
    series measured: what the wedge of a box lacks does not count against a pose (constrained correlation, Förster et
    al. 2005). Parabolas through the highest correlation and its neighbours give fractions of a voxel.

    Args:
        reference: (side, side, side), zero beyond a soft mask. rotations, angles, shifts: as for `average_boxes`.
        turns: (k, 3, 3), such as from :func:`small_rotations`. cutoff: highest frequency, cycles per voxel.
    Raises:
        InputError: arguments that do not fit, a reach of more than a quarter of the box, a cutoff not positive.
    """
    count = len(boxes)
    starts = check_rotations(rotations, count, "rotations")
    moves = check_points(np.zeros((count, 3)) if shifts is None else shifts, "shifts")
    turns = check_rotations(turns, len(turns), "turns")
    for box in boxes:
        same_shape(np.asarray(box), np.asarray(reference))
    shape = tuple(np.shape(reference))
    if len(shape) != 3 or not 0 <= reach <= min(shape) / 4 or not cutoff > 0:
        raise InputError(
            f"align: box {shape}, reach {reach}, cutoff {cutoff}; give a cube, at most a quarter of it, > 0"
        )
    fine = upsampled(torch.as_tensor(np.asarray(reference), dtype=torch.float32, device=device))
    band = radius(shape, device=device) <= cutoff
    band[0, 0, 0] = False  # grey values have no zero
    weights = {
        tilts: (band if tilts is None else band & wedge_mask(shape, tilts, rfft=True, device=device))
        * multiplicity(shape, device=device)
        for tilts in set(tilts_of(angles, count))
    }
    grid = frequency_grid(shape, device=device)
    found = Poses(starts.copy(), moves.copy(), np.empty(count))
    for k, tilts in enumerate(tilts_of(angles, count)):
        weight = weights[tilts]
        box = torch.as_tensor(np.asarray(boxes[k]), dtype=torch.float32, device=device)
        phase = sum((float(s) * f for s, f in zip(moves[k], grid, strict=True)), torch.zeros((), device=device))
        spectrum = torch.fft.rfftn(box) * torch.exp(2j * torch.pi * phase)  # its particle moved to the middle
        candidates = torch.as_tensor(starts[k] @ turns, dtype=torch.float32)
        peaks = [
            correlation_peaks(torch.fft.rfftn(sampled(fine, part), dim=DIMENSIONS), spectrum, weight, shape, reach)
            for part in candidates.split(max(1, VOXELS // int(np.prod(shape))))
        ]
        scores, at = (torch.cat(parts).cpu().double().numpy() for parts in zip(*peaks, strict=True))
        best = int(scores.argmax())
        found.rotations[k], found.scores[k] = starts[k] @ turns[best], scores[best]
        found.shifts[k] += at[best]
    return found


def upsampled(volume: Tensor) -> Tensor:
    """The volume at half the voxel size, by its Fourier series: linear interpolation then loses little."""
    pad = [p for n in reversed(volume.shape) for p in (n - n // 2, n // 2)]
    wide = F.pad(torch.fft.fftshift(torch.fft.fftn(volume)), pad)
    return 8 * torch.fft.ifftn(torch.fft.ifftshift(wide)).real


def sampled(fine: Tensor, rotations: Tensor) -> Tensor:
    """A volume given by :func:`upsampled`, turned about its middle: what lies at v then lies at R v; (k, z, y, x)."""
    sides = [n // 2 for n in fine.shape]
    axes = [torch.arange(n, dtype=torch.float32, device=fine.device) - n // 2 for n in sides]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    points = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    size = torch.tensor(fine.shape, dtype=torch.float32, device=fine.device)
    middle = torch.tensor([n // 2 for n in sides], dtype=torch.float32, device=fine.device)
    # Row vectors times the matrix: the inverse rotation. grid_sample counts x first, from -1 to 1.
    steps = (4 * rotations.to(fine.device) / (size - 1)).flip(-1)
    start = (4 * middle / (size - 1) - 1).flip(-1).expand(len(steps), 1, 3)
    places = points @ torch.cat([steps, start], 1)
    stacked = places.reshape(1, -1, *sides[1:], 3)  # all rotations along z: the volume need not be repeated
    return F.grid_sample(fine[None, None], stacked, align_corners=True)[0, 0].reshape(-1, *sides)


def correlation_peaks(
    references: Tensor, spectrum: Tensor, weight: Tensor, shape: tuple[int, ...], reach: float
) -> tuple[Tensor, Tensor]:
    """Highest correlation (k,) of each of the references' spectra with that of a box, and its shift (k, 3)."""
    norm = (weight * references.abs().square()).sum(DIMENSIONS) * (weight * spectrum.abs().square()).sum()
    cross = torch.fft.irfftn(references.conj() * spectrum * (weight > 0), s=shape, dim=DIMENSIONS)
    wide = int(np.floor(reach)) + 1  # one beyond the reach, for the parabolas
    steps = torch.arange(-wide, wide + 1, device=cross.device)
    for axis, n in zip(DIMENSIONS, shape, strict=True):
        cross = cross.index_select(axis, steps % n)
    cross = cross * (float(np.prod(shape)) / norm.clamp(min=1e-30).sqrt())[:, None, None, None]
    far = (steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2) > reach**2
    flat = cross.masked_fill(far, -torch.inf).flatten(1).argmax(1)
    side = len(steps)
    at = torch.stack([flat // side**2, flat // side % side, flat % side], 1)
    every = torch.arange(len(at), device=at.device)
    score = top = cross[every, at[:, 0], at[:, 1], at[:, 2]]
    shift = torch.empty(len(at), 3, device=cross.device)
    for axis in range(3):
        one = torch.zeros(3, dtype=at.dtype, device=at.device)
        one[axis] = 1
        below, above = (cross[every, p[:, 0], p[:, 1], p[:, 2]] for p in (at - one, at + one))
        bend = (below - 2 * top + above).clamp(max=-1e-12)
        part = (0.5 * (below - above) / bend).clamp(-0.5, 0.5)
        shift[:, axis] = at[:, axis] - wide + part
        score = score - 0.25 * (below - above) * part
    return score, shift


def rigid(volume: Volume, target: Volume, mask: Volume, *, cutoff: float = 0.5) -> Poses:
    """The pose of a volume against a target under a mask, within about 14° and 4 voxels of none, to half a degree."""
    pose = Poses(np.eye(3)[None], np.zeros((1, 3)), np.zeros(1))
    for step in (4.0, 2.0, 1.0, 0.5):
        turns = small_rotations(step, 2)
        pose = align(target * mask, volume[None], pose.rotations, None, turns, shifts=pose.shifts, cutoff=cutoff)
    return pose


def registered(volume: Volume, target: Volume, mask: Volume) -> NDArray[np.float32]:
    """An average turned and moved as a whole to where it agrees best with a target under a mask, see :func:`rigid`.

    Particles refined against their own average leave the frame in which they began, all alike; before an average is
    compared with the true density this must be undone.
    """
    pose = rigid(volume, target, mask)
    return turned(volume, pose.rotations[0], pose.shifts[0])
