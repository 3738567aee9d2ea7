"""Cutting a volume so that each part and its transforms fit into memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cryostudy.matching.correlation import fast_sides

TILE = 2**26  # voxels of a part with its margin
BATCH = {"cuda": 2**26, "cpu": 2**19}  # voxels of all maps that are computed at once; on a CPU what caches hold
FIXED, EACH = 40, 28  # bytes a voxel of a part, and of each map computed at once (with the transforms' work space)


def tiles(shape: Sequence[int], edge: int, limit: int = TILE) -> list[tuple[slice, slice, slice]]:
    """Parts that fill a volume, each with `edge` voxels more along each axis below `limit` voxels, if that is possible.

    The side that is longest is halved until they are.
    """
    counts = [1, 1, 1]

    def parts() -> list[int]:
        return [math.ceil(n / k) for n, k in zip(shape, counts, strict=True)]

    while math.prod(fast_sides([n + edge for n in parts()])) > limit and max(parts()) > max(edge, 8):
        longest = max(range(3), key=lambda a: parts()[a])
        counts[longest] += 1
    steps = parts()
    cuts = [[slice(a, min(a + step, n)) for a in range(0, n, step)] for n, step in zip(shape, steps, strict=True)]
    return [(z, y, x) for z in cuts[0] for y in cuts[1] for x in cuts[2]]


def batch_size(sides: Sequence[int], device: str) -> int:
    """Orientations computed at once."""
    return min(64, max(1, BATCH["cuda" if device.startswith("cuda") else "cpu"] // math.prod(sides)))


def memory_estimate(shape: Sequence[int], side: int, device: str = "cuda", limit: int = TILE) -> float:
    """GiB of device memory for a search in a volume with kernels of this side, spherical mask."""
    found = 0.0
    for part in tiles(shape, side - 1, limit):
        sides = fast_sides([s.stop - s.start + side - 1 for s in part])
        found = max(found, math.prod(sides) * (FIXED + EACH * batch_size(sides, device)) / 2**30)
    return found
