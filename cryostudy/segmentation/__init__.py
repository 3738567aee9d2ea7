"""Membranes in tomograms: surfaceness, tensor voting, and a mask whose threshold needs no truth."""

from cryostudy.segmentation.membranes import Membranes, segment
from cryostudy.segmentation.surfaceness import surfaceness
from cryostudy.segmentation.voting import tensor_voting

__all__ = ["Membranes", "segment", "surfaceness", "tensor_voting"]
