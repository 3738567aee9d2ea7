"""Losses: plain functions of tensors, one concept a file. Every one returns a scalar, a mean over voxels.

Means throughout: the paper's total variation is printed as a sum, which would swamp the other terms.
"""

from cryostudy.losses.edge import edge_loss, edge_map
from cryostudy.losses.guidance import guidance_loss
from cryostudy.losses.reconstruction import reconstruction_loss
from cryostudy.losses.total_variation import total_variation

__all__ = ["edge_loss", "edge_map", "guidance_loss", "reconstruction_loss", "total_variation"]
