"""All metrics of one restored volume at once, by the names that records use."""

from __future__ import annotations

from collections.abc import Sequence

from cryostudy.metrics.correlation import correlation, correlation_outside_wedge
from cryostudy.metrics.fsc import fsc
from cryostudy.metrics.scaling import Volume
from cryostudy.metrics.signal import psnr
from cryostudy.metrics.similarity import ssim


def against_truth(
    estimate: Volume, truth: Volume, *, voxel_size: float = 0.0, angles: Sequence[float] | None = None
) -> dict[str, float]:
    """PSNR and SSIM with and without affine fit, CC, FSC crossings (Å); with tilt angles, CC outside the wedge."""
    curve = fsc(estimate, truth, voxel_size=voxel_size)
    found = {
        "cc": correlation(estimate, truth),
        "psnr": psnr(estimate, truth),
        "psnr_unfitted": psnr(estimate, truth, fit=False),
        "ssim": ssim(estimate, truth),
        "ssim_unfitted": ssim(estimate, truth, fit=False),
        "fsc_0.5": curve.resolution(0.5),
        "fsc_0.143": curve.resolution(0.143),
    }
    if angles:
        found["cc_outside_wedge"] = correlation_outside_wedge(estimate, truth, angles)
    return found
