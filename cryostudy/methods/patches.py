"""Where the training patches of one volume lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Position = tuple[int, int, int]


def patch_positions(shape: tuple[int, ...], patch: int, *, limit: int, seed: int) -> list[Position]:
    """Corners of half-overlapping patches that cover a volume, in random order, at most `limit` of them.

    An axis shorter than the patch gets one position, 0: the patch is then as thin as the volume.
    """
    axes = []
    for side in shape:
        last = max(side - patch, 0)
        axes.append(sorted({*range(0, last, max(patch // 2, 1)), last}))
    count = int(np.prod([len(axis) for axis in axes]))
    chosen = np.random.default_rng(seed).permutation(count)[:limit]
    return [
        tuple(axis[i] for axis, i in zip(axes, index, strict=True))
        for index in zip(*np.unravel_index(chosen, [len(axis) for axis in axes]), strict=True)
    ]


def crop(
    volume: NDArray[Any], corner: Position, patch: int, halo: int = 0
) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """The patch at a corner with up to `halo` more voxels on each side, and where the patch lies within it."""
    outer, inner = [], []
    for start, side in zip(corner, volume.shape, strict=True):
        stop = min(start + patch, side)
        low, high = max(start - halo, 0), min(stop + halo, side)
        outer.append(slice(low, high))
        inner.append(slice(start - low, stop - low))
    return np.ascontiguousarray(volume[tuple(outer)], dtype=np.float32), tuple(inner)
