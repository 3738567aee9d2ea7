"""Ways to cut one recording into parts with independent noise."""

import numpy as np
import torch
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.tomography.arrays import Array
from cryostudy.tomography.geometry import Angles, check_angles


def split_even_odd(tilt_series: Array, angles: Angles) -> tuple[tuple[Array, list[float]], tuple[Array, list[float]]]:
    """Even and odd tilts of a series (tilt, y, x), as ((series, angles), (series, angles)).

    Every other tilt in order of angle, whatever the order of recording, so that both halves cover the range
    (a dose-symmetric series split by its own order would give two one-sided halves). Within a half the given
    order stays. Raises InputError for fewer than two tilts or an angle count that differs from them.
    """
    checked = check_angles(angles, tilt_series.shape[0])
    if checked.size < 2:
        raise InputError("tilt_series: one tilt cannot be split; give at least two")
    rank = np.argsort(np.argsort(checked, kind="stable"))
    even, odd = (np.flatnonzero(rank % 2 == parity) for parity in (0, 1))
    return (_take(tilt_series, even), checked[even].tolist()), (_take(tilt_series, odd), checked[odd].tolist())


def split_frames(frames: Array, angles: Angles) -> tuple[tuple[Array, list[float]], tuple[Array, list[float]]]:
    """Sums of the even and of the odd frames of each tilt, as ((series, angles), (series, angles)).

    frames: (tilt, frame, y, x). Both halves have all the angles; with an odd number of frames the even half has
    one frame more. Raises InputError for another number of axes, fewer than two frames, or an angle count that
    differs from the tilts.
    """
    if frames.ndim != 4 or frames.shape[1] < 2:
        raise InputError(
            f"frames: shape {tuple(frames.shape)} given; give (tilt, frame, y, x) with at least two frames"
        )
    checked = check_angles(angles, frames.shape[0]).tolist()
    return (frames[:, 0::2].sum(1), checked), (frames[:, 1::2].sum(1), list(checked))


def split_k_fold(n_tilts: int, k: int, seed: int) -> list[np.ndarray]:
    """Random split of the tilts into k disjoint parts: k ascending index arrays whose sizes differ by one at most.

    Raises InputError unless 2 <= k <= n_tilts.
    """
    if not 2 <= k <= n_tilts:
        raise InputError(f"k: {k} parts of {n_tilts} tilts asked for; give a number from 2 to {n_tilts}")
    order = np.random.default_rng(seed).permutation(n_tilts)
    return [np.sort(part) for part in np.array_split(order, k)]


def split_random(n_tilts: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random split of the tilts in two (paper 004, Appendix D.2): ascending indices of a `fraction`, and of the rest.

    Raises InputError where one of the two would be empty.
    """
    count = round(fraction * n_tilts)
    if not 0 < count < n_tilts:
        raise InputError(f"fraction: {fraction:g} of {n_tilts} tilts leaves one part empty; give one nearer to 0.5")
    order = np.random.default_rng(seed).permutation(n_tilts)
    return np.sort(order[:count]), np.sort(order[count:])


def draw_frames(tilt_series: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Two frames (tilt, 2, y, x) that sum to a simulated series, as if each image had been recorded in two exposures.

    `deviation`: of the series' white Gaussian noise. Half the sum and half the difference of two such frames are
    independent, so given the sum the difference can be drawn: the frames' noises are then independent of each other,
    each of `deviation` / sqrt(2).
    """
    noise = np.random.default_rng([seed, 6]).standard_normal(tilt_series.shape, dtype=np.float32)
    noise *= np.float32(deviation)
    return np.stack([tilt_series + noise, tilt_series - noise], 1) / 2


def _take(series: Array, index: np.ndarray) -> Array:
    return series[torch.as_tensor(index, device=series.device)] if isinstance(series, Tensor) else series[index]
