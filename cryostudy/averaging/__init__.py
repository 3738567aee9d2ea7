"""Sub-tomogram averaging: boxes cut from tomograms, averaged with their missing wedges, their poses refined locally.

Of volumes alone: the CTF is taken to be corrected in the tomogram, or beyond the resolution looked at.
"""

from cryostudy.averaging.align import Poses, align, registered, small_rotations
from cryostudy.averaging.average import average_boxes, sums, turned
from cryostudy.averaging.boxes import extract, fits, in_box, masked_fsc, soft_mask, soft_sphere
from cryostudy.averaging.refine import Refinement, refine

__all__ = [
    "Poses",
    "Refinement",
    "align",
    "average_boxes",
    "extract",
    "fits",
    "in_box",
    "masked_fsc",
    "refine",
    "registered",
    "small_rotations",
    "soft_mask",
    "soft_sphere",
    "sums",
    "turned",
]
