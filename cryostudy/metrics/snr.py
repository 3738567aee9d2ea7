"""Signal-to-noise ratio of a volume from pairs of regions, for want of a truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryostudy.errors import InputError
from cryostudy.metrics.scaling import Volume

Box = tuple[slice, ...]


def snr(volume: Volume, signal: Sequence[Box], background: Sequence[Box], *, squared: bool = True) -> float:
    r"""Signal-to-noise ratio in dB, from N pairs of a region with particles and one without.

    .. math:: \mathrm{SNR} = \frac{10}{N} \sum_i \log_{10} (\mu_s^i - \mu_b^i)^2 - \log_{10} v_b^i

    with means :math:`\mu` and the background's variance v. No measure of truth: too much
    smoothing raises it.

    Args:
        volume: (z, y, x). signal, background: boxes, pair by pair.
        squared: the definition (`bepler2020`). Without, the difference of means is not squared, as `jones2026`,
            Equation 8, prints it: its units differ from the variance's, so it depends on the grey scale.
    Raises:
        InputError: no pairs, or a constant background.
    """
    if not signal or len(signal) != len(background):
        raise InputError(f"snr: {len(signal)} and {len(background)} regions given; give pairs, at least one")
    found = []
    for bright, dark in zip(signal, background, strict=True):
        ground = np.asarray(volume[dark], np.float64)
        if not ground.std() > 1e-12 * abs(ground).max():
            raise InputError("snr: a background region is constant; give one with noise")
        contrast = max(abs(float(np.mean(volume[bright], dtype=np.float64) - ground.mean())), 1e-30)
        found.append(10 * (1 + squared) * np.log10(contrast) - 10 * np.log10(ground.var()))
    return float(np.mean(found))
