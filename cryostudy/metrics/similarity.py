"""Structural similarity in three dimensions."""

from cryostudy.errors import InputError
from cryostudy.metrics.scaling import Volume, to_unit_range

WINDOW = 7


def ssim(estimate: Volume, truth: Volume, *, fit: bool = True) -> float:
    """Mean structural similarity over 7^3 windows, on the scale where the truth spans [0, 1].

    K1 = 0.01, K2 = 0.03 (Wang et al. 2004, `wang2004`), uniform window, computed by scikit-image.

    Args:
        estimate, truth: (z, y, x) of one shape, sides of at least 7.
        fit: with the estimate's least-squares affine fit to the truth, or as it is.
    Raises:
        InputError: shapes differ, the truth is constant or a side is shorter than the window.
    """
    from skimage.metrics import structural_similarity  # heavy: only where it is used

    a, b = to_unit_range(estimate, truth, fit=fit)
    if min(a.shape) < WINDOW:
        raise InputError(f"SSIM needs sides of at least {WINDOW} voxels, not {a.shape}")
    return float(structural_similarity(a, b, data_range=1.0, win_size=WINDOW))
