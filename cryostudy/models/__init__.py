"""Networks: `nn.Module` only. They know no data, no loss and no training loop."""

from cryostudy.models.volume_shuffle import VolumeShuffleBSN, volume_shuffle, volume_unshuffle

__all__ = ["VolumeShuffleBSN", "volume_shuffle", "volume_unshuffle"]
