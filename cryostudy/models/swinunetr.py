"""SwinUNETR, as MONAI has it."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, nn

from cryostudy.errors import InputError
from cryostudy.models.padding import padded

MULTIPLE = 32  # five halvings, the first of them by its embedding of 2^3 patches


class SwinUNETR(nn.Module):
    """SwinUNETR of (batch, 1, z, y, x) -> the same, any sides (`hatamizadeh2022`, `tang2022`); the network is MONAI's.

    Its features are multiples of 12: `channels` is rounded to the next one below (12 at least; 48 is the paper's
    width). It always has five scales; `levels` is the number of transformer blocks in each (2, the paper's).
    Its instance normalisation averages over the whole patch, so that every voxel reaches every other.

    Raises:
        InputError: a package that MONAI's network needs is missing.
    """

    def __init__(self, channels: int = 48, levels: int = 2) -> None:
        super().__init__()
        from monai.networks.nets import SwinUNETR as Monai

        if importlib.util.find_spec("einops") is None:  # MONAI itself would say so only in the first step
            raise InputError("architecture swinunetr: MONAI's needs the package einops; pip install einops")
        features = max(12, channels // 12 * 12)
        self.network = Monai(in_channels=1, out_channels=1, feature_size=features, depths=(levels,) * 4)

    def forward(self, x: Tensor) -> Tensor:
        # Its coarsest stage normalises over space and refuses a single voxel: of small cubes the last axis is doubled.
        last = MULTIPLE if max(x.shape[-3:]) > MULTIPLE else 2 * MULTIPLE
        return torch.as_tensor(padded(self.network, x, (MULTIPLE, MULTIPLE, last)))
