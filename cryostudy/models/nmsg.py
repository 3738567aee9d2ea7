"""The generative adversarial network that learns what noise looks like: a generator of noise and its critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NoiseGenerator(nn.Module):
    """White noise (batch, 1, z + 2m, y + 2m, x + 2m) -> noise (batch, 1, z, y, x), with m = `margin`.

    A linear filter, which can colour Gaussian noise by itself, plus a small network for what is not Gaussian. There is
    no padding, so that the noise is the same everywhere and of any size. `flat` kernels do not reach along z: every
    slice is drawn on its own, and z needs no margin. It starts as the identity.
    """

    def __init__(self, channels: int = 8, flat: bool = False) -> None:
        super().__init__()
        self.linear = nn.Conv3d(1, 1, kernel(9, flat), bias=False)
        self.rest = nn.Sequential(
            nn.Conv3d(1, channels, kernel(5, flat)), nn.LeakyReLU(0.1),
            nn.Conv3d(channels, channels, kernel(3, flat)), nn.LeakyReLU(0.1),
            nn.Conv3d(channels, 1, kernel(3, flat)),
        )  # fmt: skip
        self.margin = (0 if flat else 4, 4, 4)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)
            self.linear.weight[0, 0, self.margin[0], 4, 4] += 1
            for value in self.rest[-1].parameters():
                value.mul_(0.1)

    def latent(self, batch: int, sides: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """White noise for `batch` samples of these sides (z, y, x)."""
        padded = [side + 2 * margin for side, margin in zip(sides, self.margin, strict=True)]
        return torch.randn(batch, 1, *padded, generator=generator)

    def forward(self, white: Tensor) -> Tensor:
        return torch.as_tensor(self.linear(white) + self.rest(white))


class Modulus(nn.Module):
    """Absolute value."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class NoiseCritic(nn.Module):
    """Noise (batch, 1, z, y, x) -> one score a sample, the mean over its places.

    The first layer ends in a modulus: it measures how strong each small pattern is, and noise differs in that. With a
    leaky ReLU there the critic can spend its slope on mean grey values, which tell nothing.
    No normalisation: the gradient penalty is on each sample's own gradient (Gulrajani et al. 2017, Section 4).
    """

    def __init__(self, channels: int = 16, flat: bool = False) -> None:
        super().__init__()
        step = (1, 2, 2) if flat else 2
        self.layers = nn.Sequential(
            nn.Conv3d(1, channels, kernel(5, flat), padding=kernel(2, flat, 0)), Modulus(),
            nn.Conv3d(channels, 2 * channels, kernel(3, flat), step, kernel(1, flat, 0)), nn.LeakyReLU(0.1),
            nn.Conv3d(2 * channels, 2 * channels, kernel(3, flat), step, kernel(1, flat, 0)), nn.LeakyReLU(0.1),
            nn.Conv3d(2 * channels, 1, 1),
        )  # fmt: skip

    def forward(self, noise: Tensor) -> Tensor:
        return torch.as_tensor(self.layers(noise).mean((1, 2, 3, 4)))


class NoiseGAN(nn.Module):
    """Generator and critic in one module, so that one optimisation loop trains both."""

    def __init__(self, channels: int = 8, flat: bool = False) -> None:
        super().__init__()
        self.generator = NoiseGenerator(channels, flat)
        self.critic = NoiseCritic(2 * channels, flat)


def kernel(side: int, flat: bool, least: int = 1) -> tuple[int, int, int]:
    """Sides (z, y, x) of a kernel, or its padding; `least` along z where it is flat."""
    return (least if flat else side, side, side)
