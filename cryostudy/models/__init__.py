"""Networks: `nn.Module` only. They know no data, no loss and no training loop."""

from cryostudy.models.unet import UNet
from cryostudy.models.volume_shuffle import VolumeShuffleBSN, volume_shuffle, volume_unshuffle

__all__ = ["UNet", "VolumeShuffleBSN", "volume_shuffle", "volume_unshuffle"]
