"""Refinement of poses in two halves of the particles that never see each other (gold standard)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from cryostudy.averaging.align import Poses, align, rigid, small_rotations
from cryostudy.averaging.average import Angles, Boxes, average_boxes, tilts_of
from cryostudy.averaging.boxes import EDGE, masked_fsc, soft_sphere
from cryostudy.errors import InputError
from cryostudy.fourier import Device, radius
from cryostudy.metrics.fsc import FSC
from cryostudy.metrics.scaling import Volume
from cryostudy.poses import check_points, check_rotations

FLOOR = 1e-3  # least weight of a shell
AGREED = 0.5  # FSC of the shells by which halves are brought together; shells near chance must not be


@dataclass(frozen=True, eq=False)
class Refinement:
    """`poses` of all boxes; `half` (n,) 0 or 1; `halves`, their averages; `curves`, half-map FSC before each round and
    after the last, under `mask`."""

    poses: Poses
    half: NDArray[np.int64]
    halves: tuple[Boxes, Boxes]
    curves: tuple[FSC, ...]
    mask: Volume


def refine(
    boxes: Boxes,
    rotations: ArrayLike,
    angles: Angles,
    *,
    shifts: ArrayLike | None = None,
    half: ArrayLike | None = None,
    rounds: Sequence[float] = (4.0, 2.0),
    reach: float = 2.0,
    cutoff: float = 0.5,
    mask: Volume | None = None,
    voxel_size: float = 0.0,
    device: Device = "cpu",
) -> Refinement:
    """Rounds of aligning each half of the boxes to its own average, and averaging anew.

    The reference of a half is its average under the mask, each shell weighted by sqrt(2 F / (1 + F)) with F the
    half-map FSC (`rosenthal2003`), so that noise is not aligned to noise. Each half drifts as a whole; the
    second is therefore turned and moved to the first after each round, by the shells in which their FSC exceeds 0.5.
    But for this and the weights nothing passes between halves, so the FSC of noise stays at chance. The poses given
    can still bias both halves alike: those of template matching carry the template, up to its resolution.

    Args:
        boxes: (n, side, side, side). rotations, angles, shifts: as for `average_boxes`. half: (n,) 0 or 1; every other
            box by default. rounds: angular step of each in degrees; the grid reaches two steps far. reach: voxels, of
            shifts in each round. cutoff: highest frequency used, cycles per voxel. mask: soft; by default a sphere that
            fills the box. voxel_size: Å, of the curves.
    Raises:
        InputError: a half without boxes, or arguments that do not fit.
    Source: `jones2026`, Section 2.2.3 (rounds of a local angular grid); Scheres and Chen 2012 (halves).
    """
    count, side = len(boxes), np.shape(boxes)[-1]
    part = np.arange(count) % 2 if half is None else np.asarray(half)
    if part.shape != (count,) or not all((part == h).any() for h in (0, 1)) or not np.isin(part, (0, 1)).all():
        raise InputError(f"half: give 0 or 1 for each of the {count} boxes, both at least once")
    soft = soft_sphere(side, side / 2 - EDGE) if mask is None else np.asarray(mask, np.float32)
    tilts = tilts_of(angles, count)
    poses = Poses(
        check_rotations(rotations, count, "rotations").copy(),
        check_points(np.zeros((count, 3)) if shifts is None else shifts, "shifts").copy(),
        np.full(count, np.nan),
    )
    members = [np.flatnonzero(part == h) for h in (0, 1)]
    lists = [None if angles is None else [tilts[i] or () for i in m] for m in members]

    def average(h: int) -> Boxes:
        return average_boxes(boxes[members[h]], poses.rotations[members[h]], lists[h], poses.shifts[members[h]])

    def averages() -> tuple[tuple[Boxes, Boxes], FSC]:
        halves = average(0), average(1)
        curve = masked_fsc(*halves, soft, voxel_size=voxel_size)
        agreed = (voxel_size or 1.0) / curve.resolution(AGREED)
        if agreed > 0:
            whole = rigid(halves[1], halves[0], soft, cutoff=agreed)
            turn, move = whole.rotations[0], whole.shifts[0]
            poses.shifts[members[1]] += poses.rotations[members[1]] @ move
            poses.rotations[members[1]] = poses.rotations[members[1]] @ turn
            halves = halves[0], average(1)
            curve = masked_fsc(*halves, soft, voxel_size=voxel_size)
        return halves, curve

    halves, curve = averages()
    curves = [curve]
    for step in tqdm(rounds, desc="refining poses", unit="round", delay=2, disable=None):
        turns = small_rotations(step, 2)
        for m, a, own in zip(members, lists, halves, strict=True):
            reference = weighted(own, curve, voxel_size) * soft
            found = align(
                reference, boxes[m], poses.rotations[m], a, turns,
                shifts=poses.shifts[m], reach=reach, cutoff=cutoff, device=device,
            )  # fmt: skip
            poses.rotations[m], poses.shifts[m], poses.scores[m] = found.rotations, found.shifts, found.scores
        halves, curve = averages()
        curves.append(curve)
    return Refinement(poses, part, halves, tuple(curves), soft)


def weighted(volume: Boxes, curve: FSC, voxel_size: float = 0.0) -> Boxes:
    """Each shell of an average times sqrt(2 F / (1 + F)), F the half-map FSC: its correlation with what it averages."""
    f = np.clip(curve.correlation, 0, 1)
    weight = np.maximum(np.sqrt(2 * f / (1 + f)), FLOOR)
    grid = np.interp(radius(volume.shape).numpy(), curve.frequency * (voxel_size or 1.0), weight)
    spectrum = torch.fft.rfftn(torch.as_tensor(volume)) * torch.from_numpy(grid.astype(np.float32))
    return torch.fft.irfftn(spectrum, s=volume.shape).numpy()
