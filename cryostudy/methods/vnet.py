"""V-Net (Milletari et al. 2016), trained on simulated specimens; the network is MONAI's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cryostudy.methods.supervised import Supervised
from cryostudy.models.padding import padded


@dataclass(frozen=True)
class VNet(Supervised):
    """The segmentation network of `milletari2016`, here with one grey value for an output and squared error for a loss.

    `channels`: of its first stage, doubled four times on the way down; 16 in the paper. Patches and steps are this
    study's choice.
    """

    name: ClassVar[str] = "vnet"
    summary: ClassVar[str] = "V-Net (MONAI's) trained on simulated specimens"
    paper: ClassVar[str] = "Milletari et al. 2016"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 1, "patch": 32, "batch": 1, "steps": 4, "specimens": 3, "side": 32,
                  "learning_rate": 1e-2},
        "laptop": {"channels": 4, "patch": 32, "batch": 1, "steps": 200, "specimens": 10, "side": 64,
                   "learning_rate": 4e-3},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Supervised.limits, "patch": (32, 10**4)}
    halo: ClassVar[int] = 24
    multiple: ClassVar[int] = 16

    channels: int = 16
    patch: int = 64
    batch: int = 8
    steps: int | None = 4000
    learning_rate: float = 1e-3

    def network(self) -> nn.Module:
        """An untrained network of this width."""
        return network(self.channels)

    def predict(self, network: nn.Module, noisy: Tensor) -> Tensor:
        """Any sides: mirrored up to multiples of the 16 voxels that one of the coarsest stage covers."""
        return torch.as_tensor(padded(network, noisy, (self.multiple,) * 3))


def network(channels: int) -> nn.Module:
    """MONAI's V-Net, without the drop-out that it adds to the paper's; of other widths from its own building blocks."""
    from monai.networks.nets import vnet

    found = vnet.VNet()
    if channels != 16:
        act, c = ("elu", {"inplace": True}), channels
        found.in_tr = vnet.InputTransition(3, 1, c, act)
        for name, width, convolutions in (("32", c, 1), ("64", 2 * c, 2), ("128", 4 * c, 3), ("256", 8 * c, 2)):
            setattr(found, f"down_tr{name}", vnet.DownTransition(3, width, convolutions, act))
        ups = (("256", 16 * c, 16 * c, 2), ("128", 16 * c, 8 * c, 2), ("64", 8 * c, 4 * c, 1), ("32", 4 * c, 2 * c, 1))
        for name, inputs, outputs, convolutions in ups:
            setattr(found, f"up_tr{name}", vnet.UpTransition(3, inputs, outputs, convolutions, act))
        found.out_tr = vnet.OutputTransition(3, 2 * c, 1, act)
    for module in found.modules():
        if isinstance(module, nn.Dropout3d):
            module.p = 0.0
    return found
