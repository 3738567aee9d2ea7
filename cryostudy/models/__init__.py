"""Networks: `nn.Module` only. They know no data, no loss and no training loop."""

from torch import nn

from cryostudy.models.unet import UNet
from cryostudy.models.volume_shuffle import VolumeShuffleBSN, volume_shuffle, volume_unshuffle

__all__ = ["ARCHITECTURES", "UNet", "VolumeShuffleBSN", "build", "volume_shuffle", "volume_unshuffle"]

ARCHITECTURES = ("unet", "msdnet", "scunet", "swinunetr")


def build(architecture: str, channels: int, levels: int) -> nn.Module:
    """An untrained network (batch, 1, z, y, x) -> the same, any sides, of the architectures that paper 003 compares."""
    if architecture == "msdnet":
        from cryostudy.models.msdnet import MSDNet

        return MSDNet(channels, levels)
    if architecture == "scunet":
        from cryostudy.models.scunet import SCUNet

        return SCUNet(channels, levels)
    if architecture == "swinunetr":
        from cryostudy.models.swinunetr import SwinUNETR

        return SwinUNETR(channels, levels)
    return UNet(channels, levels)
