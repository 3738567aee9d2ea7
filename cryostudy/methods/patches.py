"""Which parts of one volume a method trains on, and which it is checked on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Position = tuple[int, ...]
SMALLEST_SPLIT = 32  # voxels; a volume without a side of that length is too small to hold part of it back
SMALLEST_PART = 4  # voxels; a thinner part has no content to learn from or to check on


def patch_positions(shape: tuple[int, ...], patch: int, *, limit: int, seed: int) -> list[Position]:
    """Corners of half-overlapping patches that cover a volume, in random order, at most `limit` of them.

    An axis shorter than the patch gets one position, 0: the patch is then as thin as the volume.
    """
    axes = [axis_positions(side, patch) for side in shape]
    sides = [len(axis) for axis in axes]
    chosen = np.random.default_rng(seed).permutation(int(np.prod(sides)))[:limit]
    return [tuple(axis[i] for axis, i in zip(axes, np.unravel_index(c, sides), strict=True)) for c in chosen]


def count_positions(shape: tuple[int, ...], patch: int) -> int:
    """How many half-overlapping patches cover a volume."""
    return math.prod(len(axis_positions(side, patch)) for side in shape)


def axis_positions(side: int, patch: int) -> list[int]:
    """Starts of half-overlapping patches along an axis."""
    last = max(side - patch, 0)
    return sorted({*range(0, last, max(patch // 2, 1)), last})


def crop(volume: NDArray[Any] | Tensor, corner: Position, patch: int) -> Any:
    """The patch at a corner, cut off where the volume ends; a view."""
    return volume[box(corner, patch)]


def box(corner: Position, patch: int) -> tuple[slice, ...]:
    """The slices (z, y, x) of the patch at a corner."""
    return tuple(slice(start, start + patch) for start in corner)


def central_box(shape: tuple[int, ...], limit: int) -> tuple[slice, ...]:
    """The central part of a volume with about `limit` voxels at most, its longest sides cut first."""
    sides = list(shape)
    while np.prod(sides, dtype=np.int64) > limit:
        longest = int(np.argmax(sides))
        others = int(np.prod(sides, dtype=np.int64)) // sides[longest]
        second = max((s for k, s in enumerate(sides) if k != longest), default=1)
        sides[longest] = max(1, min(sides[longest] - 1, max(limit // others, min(second, sides[longest] - 1))))
    return tuple(slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(shape, sides, strict=True))


def hold_out(shape: tuple[int, ...], share: float) -> tuple[tuple[slice, ...], tuple[slice, ...] | None]:
    """Disjoint parts of a box to train and to check on: the last `share` of its longest axis is held out.

    Overlapping patches, held out at random, would share most of their voxels with training and hide over-fitting.
    Returns (training part, held-out part); the latter is None where `share` is 0 or the box too small.
    """
    longest = int(np.argmax(shape))
    cut = round(shape[longest] * (1 - share))
    everything = [slice(0, side) for side in shape]
    if shape[longest] < SMALLEST_SPLIT or min(cut, shape[longest] - cut) < SMALLEST_PART:
        return tuple(everything), None
    training, held_out = everything.copy(), everything.copy()
    training[longest], held_out[longest] = slice(0, cut), slice(cut, shape[longest])
    return tuple(training), tuple(held_out)


def random_crop(
    volumes: tuple[Tensor, ...], patch: int, rng: np.random.Generator, *, mirror: bool = True
) -> tuple[Tensor, ...]:
    """The same random patch of volumes of one shape (z, y, x), mirrored at random along each axis.

    Mirroring keeps a symmetric missing wedge where it is; rotations by 90 degrees about y would not.
    """
    sides = volumes[0].shape
    corner = tuple(int(rng.integers(0, max(side - patch, 0) + 1)) for side in sides)
    flips = [axis for axis in range(3) if mirror and rng.random() < 0.5]
    return tuple(torch.flip(crop(volume, corner, patch), flips) for volume in volumes)
