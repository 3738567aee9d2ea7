"""Tilt series and tomograms: project, reconstruct, split, missing wedge; the CTF is in ``tomography.ctf``."""

from cryostudy.tomography.geometry import measured_ranges, tilt_shares, wedge_fraction
from cryostudy.tomography.reconstruction import Filter, as_filter, project, reconstruct
from cryostudy.tomography.splits import split_even_odd, split_frames, split_k_fold
from cryostudy.tomography.wedge import wedge_mask

__all__ = [
    "Filter",
    "as_filter",
    "measured_ranges",
    "project",
    "reconstruct",
    "split_even_odd",
    "split_frames",
    "split_k_fold",
    "tilt_shares",
    "wedge_fraction",
    "wedge_mask",
]
