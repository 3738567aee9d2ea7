"""How high a peak must be so that noise gives, in a whole volume, no more than a stated number of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcinv

from cryostudy.errors import InputError

TAIL = 100  # peaks of the reference that make up its tail
LEAST = 10


def gaussian_threshold(deviation: float, trials: float, rate: float = 1.0) -> float:
    """Score that noise exceeds `rate` times in a volume, if scores of one orientation are normal about 0.

    trials erfc(t / (sqrt(2) deviation)) / 2 = rate (Rickgauer, Grigorieff and Denk 2017, eLife 6:e25648). `trials` is
    the number of voxels times orientations. Neighbours among them are correlated, so that fewer than `rate` are
    found: an upper bound.

    Raises:
        InputError: a rate that is not positive.
    """
    check_rate(rate)
    return float(np.sqrt(2) * deviation * erfcinv(min(2 * rate / trials, 1.0)))


def tail_threshold(peaks: NDArray[np.floating], rate: float = 1.0, tail: int = TAIL) -> float:
    """Score that `rate` peaks of a volume exceed, from the peaks (n,) of the noise reference in the same volume.

    Far out the number of peaks of a Gaussian field beyond t falls as exp(-t^2 / 2 s^2), so the excess of t^2 beyond the
    lowest of the `tail` highest peaks is exponential. Its scale is known from as many peaks only; the threshold allows
    for that (predictive distribution, which is Pareto's).

    Raises:
        InputError: a rate that is not positive, or too few peaks above 0.
    """
    check_rate(rate)
    ordered = np.sort(np.asarray(peaks, np.float64))[::-1]
    ordered = ordered[ordered > 0]
    count = min(tail, len(ordered) // 2)
    if count < LEAST:
        raise InputError(
            f"false-positive rate: only {len(ordered)} peaks in the noise reference; give a larger volume or a smaller "
            "radius"
        )
    lowest = ordered[count] ** 2
    scale = (ordered[:count] ** 2 - lowest).mean()
    excess = count * scale * np.expm1(np.log(max(count / rate, 1.0)) / count)
    return float(np.sqrt(lowest + excess))


def check_rate(rate: float) -> None:
    """Raise InputError unless it is positive."""
    if not 0 < rate < np.inf:
        raise InputError(f"false-positive rate {rate:g}: give a positive number of false peaks per volume")
