"""Is a volume fit for restoration, and what are its mean and standard deviation?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cryostudy.errors import InputError

MIN_SIDE = 8
_SLAB_VOXELS = 1 << 22


class Moments(NamedTuple):
    """Minimum, maximum, mean and standard deviation."""

    minimum: float
    maximum: float
    mean: float
    deviation: float


def slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices along z of about four million voxels, so that work on a memory map stays in bounded memory."""
    step = max(1, _SLAB_VOXELS // max(1, int(np.prod(shape[1:], dtype=np.int64))))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def check_volume(data: np.ndarray, name: str) -> None:
    """Refuse a volume (z, y, x) that no method can restore; ``name`` (file or parameter) heads the message.

    Raises InputError for data that is not 3-D, complex or not numeric, has a side shorter than 8 voxels, has
    NaN or infinite voxels (with their number and the position (z, y, x) of the first, counted from 0), or is
    constant. Bounded memory on a memory map.
    """
    if data.ndim != 3:
        raise InputError(f"{name}: {data.ndim}-D data; give a 3-D volume (z, y, x)")
    if data.dtype.kind == "c":
        raise InputError(f"{name}: complex voxels; give the real-space volume")
    if data.dtype.kind not in "iuf":
        raise InputError(f"{name}: voxels of type {data.dtype}; give integers or real numbers")
    if min(data.shape) < MIN_SIDE:
        size = " x ".join(map(str, data.shape))
        raise InputError(f"{name}: too small ({size} voxels in z, y, x); every side needs at least {MIN_SIDE} voxels")
    n_bad, first = 0, (0, 0, 0)
    low, high = np.inf, -np.inf
    for slab in slabs(data.shape):
        block = np.asarray(data[slab])
        bad = ~np.isfinite(block)
        if bad.any():
            if n_bad == 0:
                z, y, x = (int(i) for i in np.unravel_index(bad.argmax(), bad.shape))
                first = (slab.start + z, y, x)
            n_bad += int(np.count_nonzero(bad))
        else:
            low, high = min(low, block.min()), max(high, block.max())
    if n_bad:
        what = "voxel is" if n_bad == 1 else "voxels are"
        raise InputError(f"{name}: {n_bad} {what} NaN or infinite, the first at (z, y, x) = {first}; repair or crop it")
    if low == high:
        raise InputError(f"{name}: constant, every voxel is {low:g}; give a volume with content")


def valid_mask(data: np.ndarray) -> np.ndarray:
    """True where a voxel of ``data`` (z, y, x) is content, False in the zero border; same shape, bool.

    A voxel is border if a run of exact zeros leads from it to the edge of its slice both along x and along y.
    This finds empty slices, margins and the padded corners of a rotated volume exactly, wherever the content
    of a slice is convex; single zeros inside, frequent in integer data, stay content.
    """
    filled = data != 0
    return _between(filled, 1) | _between(filled, 2)


def _between(filled: np.ndarray, axis: int) -> np.ndarray:
    """True from the first to the last True along ``axis``."""
    n = filled.shape[axis]
    index = np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)])
    first = filled.argmax(axis, keepdims=True)
    last = n - 1 - np.flip(filled, axis).argmax(axis, keepdims=True)
    return filled.any(axis, keepdims=True) & (index >= first) & (index <= last)


def statistics(data: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of ``data`` (z, y, x) without its zero border (see :func:`valid_mask`).

    Accumulated in float64, slab by slab; (0.0, 0.0) if every voxel is zero.
    """
    found = moments(data, without_border=True)
    return found.mean, found.deviation


def moments(data: np.ndarray, *, without_border: bool = False) -> Moments:
    """Minimum, maximum, mean and standard deviation of ``data`` (z, y, x), slab by slab in float64.

    The slabs are merged with the pairwise update of Chan, Golub and LeVeque (1983), which does not lose
    digits when the mean is large.
    """
    count, mean, squares = 0, 0.0, 0.0
    low, high = np.inf, -np.inf
    for slab in slabs(data.shape):
        block = np.asarray(data[slab])
        values = block[valid_mask(block)] if without_border and not block.all() else block
        if values.size == 0:
            continue
        with np.errstate(invalid="ignore"):  # infinite voxels give NaN, which says enough
            values = values.astype(np.float64)
            block_mean = float(values.mean())
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            values -= block_mean
        difference, total = block_mean - mean, count + values.size
        squares += float(np.sum(np.square(values))) + difference**2 * count * values.size / total
        mean += difference * values.size / total
        count = total
    if count == 0:
        return Moments(0.0, 0.0, 0.0, 0.0)
    return Moments(low, high, mean, float(np.sqrt(squares / count)))
