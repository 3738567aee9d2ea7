"""Peak signal-to-noise ratio."""

import math

import numpy as np

from cryostudy.metrics.scaling import Volume, to_unit_range


def psnr(estimate: Volume, truth: Volume, *, fit: bool = True) -> float:
    r"""Peak signal-to-noise ratio in dB, on the scale where the truth spans [0, 1].

    .. math:: \mathrm{PSNR} = -10 \log_{10} \mathrm{mean}\,(\hat V - V)^2

    Args:
        estimate, truth: (z, y, x) of one shape.
        fit: with the estimate's least-squares affine fit to the truth, or as it is; the study reports both, for the
            value depends on range and scaling.
    Raises:
        InputError: shapes differ or the truth is constant.
    """
    a, b = to_unit_range(estimate, truth, fit=fit)
    error = float(np.mean((a - b) ** 2))
    return -10 * math.log10(error) if error > 0 else math.inf
