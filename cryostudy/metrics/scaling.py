"""How volumes of different grey scales are brought together before a difference means anything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy.errors import InputError

Volume = NDArray[Any]


def same_shape(a: Volume, b: Volume) -> None:
    """Raises InputError when two volumes to be compared differ in shape."""
    if a.shape != b.shape:
        raise InputError(f"volumes to compare have shapes {a.shape} and {b.shape}; crop them to the same")


def affine_fit(estimate: Volume, truth: Volume) -> NDArray[np.float64]:
    """a * estimate + b with the a, b of least squared difference from the truth.

    Restorations come in arbitrary grey scales; the fit removes the scale and leaves the structure.
    """
    same_shape(estimate, truth)
    x, y = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    centred = x - x.mean()
    variance = np.vdot(centred, centred)
    slope = np.vdot(centred, y) / variance if variance > 0 else 0.0
    return slope * centred + y.mean()


def to_unit_range(estimate: Volume, truth: Volume, *, fit: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate and truth on the scale on which the truth spans [0, 1].

    Args:
        fit: give the estimate its best affine fit to the truth first; without, it must be on the truth's scale.
    Raises:
        InputError: shapes differ, or the truth is constant.
    """
    same_shape(estimate, truth)
    low, high = float(truth.min()), float(truth.max())
    if not high > low:
        raise InputError("the truth is constant; no data range to measure against")
    estimate = affine_fit(estimate, truth) if fit else np.asarray(estimate, np.float64)
    return (estimate - low) / (high - low), (np.asarray(truth, np.float64) - low) / (high - low)
