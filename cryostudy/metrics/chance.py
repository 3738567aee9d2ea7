"""Whether a volume resembles a specimen that was never in it more than chance allows."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from cryostudy.metrics.fsc import fsc
from cryostudy.metrics.scaling import Volume


def likeness(volume: Volume, specimen: Volume) -> tuple[float, float, float]:
    """Mean Fourier shell correlation of a volume (z, y, x) with a specimen: (found, mean and deviation by chance).

    Chance is the same number for the specimen mirrored and turned about its axes, in the 47 other ways that a cube
    allows (7 where the sides differ). These copies have its spectrum and its empty borders, to which networks answer
    too, and none of its places. What stays within 4 deviations of the mean is no structure.

    Raises:
        InputError: shapes differ.
    """
    whole = np.asarray(specimen)
    found = []
    for axes in permutations(range(3)):
        if tuple(whole.shape[axis] for axis in axes) != whole.shape:
            continue
        for mirror in product((1, -1), repeat=3):
            copy = whole.transpose(axes)[tuple(slice(None, None, step) for step in mirror)]
            found.append(float(fsc(volume, copy).correlation.mean()))
    itself, *others = found  # the first of both loops changes nothing
    return itself, float(np.mean(others)), float(np.std(others, ddof=1))
