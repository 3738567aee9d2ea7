"""DnCNN (Zhang et al. 2017): a chain of convolutions that predicts the noise."""

from __future__ import annotations

from torch import Tensor, nn


class DnCNN(nn.Module):
    """(batch, 1, z, y, x) -> the same shape: the input minus the noise that the chain predicts from it.

    `depth` 3^3 convolutions of `channels` features, ReLU between them and batch normalisation in all but the first and
    the last; `zhang2017`, Section III, with cubes for squares. A voxel sees `depth` voxels
    to each side.
    """

    def __init__(self, depth: int = 17, channels: int = 64) -> None:
        super().__init__()
        self.noise = chain(depth, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.noise(x)


def chain(depth: int, channels: int, inputs: int, outputs: int) -> nn.Sequential:
    """conv + ReLU, `depth` - 2 times conv + BN + ReLU, conv: the body of DnCNN and of FFDNet."""
    layers: list[nn.Module] = [nn.Conv3d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(depth - 2):  # no bias before a normalisation that subtracts the mean
        layers.append(nn.Conv3d(channels, channels, 3, padding=1, bias=False))
        layers += [nn.BatchNorm3d(channels), nn.ReLU(inplace=True)]
    layers.append(nn.Conv3d(channels, outputs, 3, padding=1))
    for layer in layers:
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(*layers)
