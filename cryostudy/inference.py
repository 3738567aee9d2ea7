"""The one tiled pass over a large volume: overlapping tiles, smooth blending, memory bounded by one tile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cryostudy.errors import InputError


def tiled(
    function: Callable[[Tensor], Tensor],
    volume: NDArray[Any],
    *,
    out: NDArray[np.float32] | None = None,
    tile: int = 108,
    halo: int = 9,
    blend: int = 9,
    multiple: int = 1,
    device: str | torch.device = "cpu",
    progress: bool | None = None,
) -> NDArray[np.float32]:
    """Apply `function` to a volume in overlapping tiles and blend them without seams.

    Neighbouring tiles share `2 halo + blend` voxels or more: the outer `halo` of each is thrown away, for there the
    function lacked context, and across the `blend` voxels between them one fades into the other with weights that sum
    to 1. A function of local context up to `halo` voxels gives exactly what one pass over the whole volume gives.

    Args:
        function: (1, 1, z, y, x) tensor on `device` -> tensor of the same shape.
        volume: (z, y, x), any real dtype, also a memory map.
        out: float32 array to write into, also a memory map; made here by default. Overwritten.
        tile: largest side of a tile, voxels. multiple: tiles start at multiples of this.
        progress: show a bar; default (None) only on a terminal.
    Returns:
        `out`.
    Raises:
        InputError: tiles too small for their overlap.
    """
    if tile - 2 * halo - blend < multiple or tile < 2 * halo + 3 * blend:
        least = max(2 * halo + blend + multiple, 2 * halo + 3 * blend)
        raise InputError(f"tile of {tile} voxels is too small for its overlap; use {least} or more")
    if out is None:
        out = np.zeros(volume.shape, np.float32)
    else:
        out[...] = 0
    axes = [axis_tiles(n, tile, halo, blend, multiple) for n in volume.shape]
    tiles = list(itertools.product(*axes))
    with torch.inference_mode():
        for parts in tqdm(tiles, desc="restore", unit="tile", disable=None if progress is None else not progress):
            where = tuple(part[0] for part in parts)
            x = torch.tensor(np.asarray(volume[where], np.float32), device=device)
            y = function(x[None, None])[0, 0].float().cpu().numpy()
            for axis, (_, weight) in enumerate(parts):
                y = y * weight.reshape([-1 if a == axis else 1 for a in range(3)])
            out[where] += y
    return out


def axis_tiles(n: int, tile: int, halo: int, blend: int, multiple: int = 1) -> list[tuple[slice, NDArray[np.float32]]]:
    """Slices that cover an axis of `n` voxels and their blending weights, which sum to 1 at every voxel."""
    if n <= tile:
        return [(slice(0, n), np.ones(n, np.float32))]
    step = (tile - 2 * halo - blend) // multiple * multiple
    last = -(-(n - tile) // multiple) * multiple  # the last tile is moved back so that it is as large as the others
    starts = [*range(0, last, step), last]
    slices = [slice(start, min(start + tile, n)) for start in starts]
    weights = [np.ones(s.stop - s.start, np.float32) for s in slices]
    ramp = ((np.arange(blend) + 0.5) / blend).astype(np.float32)
    for k in range(len(slices) - 1):
        overlap = slices[k].stop - slices[k + 1].start
        before = (overlap - blend) // 2
        rise = np.concatenate([np.zeros(before), ramp, np.ones(overlap - blend - before)]).astype(np.float32)
        weights[k][len(weights[k]) - overlap :] *= 1 - rise
        weights[k + 1][:overlap] *= rise
    return list(zip(slices, weights, strict=True))
