"""Metrics: plain functions of volumes (z, y, x), one concept a file. Higher is better, except where noted."""

from cryostudy.metrics.chance import likeness
from cryostudy.metrics.correlation import correlation, correlation_outside_wedge
from cryostudy.metrics.detection import Detection, detection
from cryostudy.metrics.fsc import FSC, fsc, fsc_even_odd
from cryostudy.metrics.leak import leak
from cryostudy.metrics.scaling import affine_fit, to_unit_range
from cryostudy.metrics.segmentation import completeness, completeness_by_angle, dice, precision, surface_distance
from cryostudy.metrics.signal import psnr
from cryostudy.metrics.similarity import ssim
from cryostudy.metrics.summary import against_truth

__all__ = [
    "FSC",
    "Detection",
    "affine_fit",
    "against_truth",
    "completeness",
    "completeness_by_angle",
    "correlation",
    "correlation_outside_wedge",
    "detection",
    "dice",
    "fsc",
    "fsc_even_odd",
    "leak",
    "likeness",
    "precision",
    "psnr",
    "ssim",
    "surface_distance",
    "to_unit_range",
]
