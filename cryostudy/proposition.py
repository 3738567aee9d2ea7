"""Proposition 1 of paper 004 by Monte Carlo: is the masked loss of two wedges the supervised one up to a constant?

The setup is the idealised one of its Section 2.1.3: one fixed structure, random masks M and M~ whose joint distribution
stays when they change places, and independent noise in input and target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Generator, Tensor, nn

from cryostudy.losses.objectives import l2
from cryostudy.methods.learned import generator
from cryostudy.models import UNet
from cryostudy.rotation import about_tilt_axis, random_rotations
from cryostudy.tomography import wedge_mask

AXES = (-3, -2, -1)
BATCH = 50  # draws at a time
BLOCKS = 25  # of draws, for the jackknife


def structure(side: int, seed: int = 0) -> Tensor:
    """A fixed random density (side, side, side) of variance 1, smooth and confined to the middle."""
    rough = np.random.default_rng(seed).standard_normal((side,) * 3)
    axis = np.linspace(-1, 1, side) ** 2
    inside = axis[:, None, None] + axis[:, None] + axis < 0.64
    density = ndimage.gaussian_filter(np.abs(ndimage.gaussian_filter(rough, side / 12)) * inside, side / 24)
    return torch.from_numpy((density - density.mean()) / density.std()).float()


def random_networks(count: int, probe: Tensor, seed: int = 0) -> list[nn.Module]:
    """Untrained U-Nets and (with no level) plain convolutional networks of several widths.

    Their outputs for `probe` (1, 1, z, y, x) have mean 0 and random deviations from 0.3 to 2: the networks do differ,
    and no constant, which every mask lets through, drowns that difference.
    """
    found: list[nn.Module] = []
    for k in range(count):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(np.random.default_rng((seed, k)).integers(2**62)))
            network = UNet(channels=2 + k % 4, levels=k % 3)
            network.last.weight *= (0.3 + 1.7 * torch.rand(())) / network(probe).std()
            assert network.last.bias is not None
            network.last.bias -= network(probe).mean()
        found.append(network.eval())
    return found


def wedge_rotations(count: int, generator: Generator, *, overlap: bool) -> tuple[Tensor, Tensor]:
    """Rotations (count, 3, 3) of the two wedges; changing places leaves their joint distribution as it is.

    `overlap`: two independent uniform rotations. Otherwise both have one random tilt axis, about which they are 45 to
    135 degrees apart: two wedges around different axes always overlap, along the line where their middle planes meet,
    while around one axis they do not as long as neither is wider than 45 degrees.
    """
    first = random_rotations(count, generator)
    if overlap:
        return first, random_rotations(count, generator)
    return first, first @ about_tilt_axis(45 + 90 * torch.rand(count, generator=generator))


@dataclass(frozen=True)
class Draws:
    """Masks (n, 1, z, y, x // 2 + 1) and volumes (n, 1, z, y, x) of Equation 3: `given` has lost both wedges."""

    own: Tensor
    added: Tensor
    given: Tensor
    target: Tensor


def draw(
    truth: Tensor,
    angles: Sequence[float],
    noise: float,
    count: int,
    generator: Generator,
    *,
    overlap: bool = False,
    shared: bool = False,
) -> Draws:
    """Random masks and noisy observations of one structure (z, y, x); `noise` is a deviation.

    `shared`: input and target have the same noise, against the proposition's assumption.
    """
    sides = tuple(truth.shape)
    rotations = wedge_rotations(count, generator, overlap=overlap)
    own, added = (wedge_mask(sides, angles, rotation=r, rfft=True)[:, None] for r in rotations)
    noises = [noise * torch.randn(count, 1, *sides, generator=generator) for _ in range(2)]
    first, second = (torch.fft.rfftn(truth + n, dim=AXES) * own for n in (noises[0], noises[0 if shared else 1]))
    given = torch.fft.irfftn(first * added, s=sides, dim=AXES)
    return Draws(own, added, given, torch.fft.irfftn(second, s=sides, dim=AXES))


@torch.no_grad()
def gaps(
    networks: Sequence[nn.Module],
    truth: Tensor,
    angles: Sequence[float],
    weights: Sequence[float],
    *,
    noise: float = 1.0,
    draws: int = 1000,
    overlap: bool = False,
    shared: bool = False,
    seed: int = 0,
) -> Tensor:
    """Self-supervised less supervised loss, (weights, draws, networks), each draw the same for all networks.

    The first is Equation 4 with this weight on the squared wedge term (the paper's factor 2 inside the norm is weight
    4); the second is the distance from the truth on all that either mask lets through, which without overlap is
    everything (Equation 8).
    """
    chance, found = generator(seed, 7), []
    each = torch.vmap(l2)
    for start in range(0, draws, BATCH):
        d = draw(truth, angles, noise, min(BATCH, draws - start), chance, overlap=overlap, shared=shared)
        known = (d.own | d.added).float()
        clean = truth.expand_as(d.given)
        rows = []
        for network in networks:
            estimate = network(d.given)
            supervised = each(estimate, clean, known)
            masks = [d.own * torch.where(d.added, 1.0, weight**0.5) for weight in weights]
            rows.append(torch.stack([each(estimate, d.target, mask) - supervised for mask in masks]))
        found.append(torch.stack(rows, -1))
    return torch.cat(found, 1)


@dataclass(frozen=True)
class Constancy:
    """How far a gap is from being the same for all networks.

    `offset`: its mean over draws less the mean over networks, `error`: the standard error of that; both by network.
    `statistic`: Hotelling's T squared of all offsets over their number less one: 1 is expected of a constant.
    `p`: the chance of a larger one, were the gap constant.
    """

    offset: NDArray[np.float64]
    error: NDArray[np.float64]
    statistic: float
    p: float


def constancy(gap: Tensor) -> Constancy:
    """Test a gap (draws, networks); networks share their draws, so only differences between them are judged.

    Raises:
        ValueError: fewer than twice as many draws as networks.
    """
    values = gap.double().numpy()
    n, count = values.shape
    if n < 2 * count:
        raise ValueError(f"{n} draws for {count} networks: too few to tell noise from difference")
    contrast = values - values.mean(1, keepdims=True)
    mean, spread = contrast.mean(0), np.cov(contrast.T)
    free = count - 1  # the offsets sum to zero: any one of them follows from the others
    square = n * mean[:free] @ np.linalg.solve(spread[:free, :free], mean[:free])
    p = stats.f.sf(square * (n - free) / (free * (n - 1)), free, n - free)
    return Constancy(mean, np.sqrt(np.diag(spread) / n), float(square / free), float(p))


def best_weight(gap1: Tensor, gap2: Tensor) -> tuple[float, float]:
    """The weight at which the gap varies least between networks, and its jackknife error.

    From the gaps (draws, networks) at weights 1 and 2, for the loss is linear in the weight.
    """

    def solve(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
        at1, slope = first.mean(0), (second - first).mean(0)
        slope = slope - slope.mean()
        return float(1 - (at1 - at1.mean()) @ slope / (slope @ slope))

    first, second = gap1.double().numpy(), gap2.double().numpy()
    blocks = np.array_split(np.arange(len(first)), BLOCKS)
    left = [solve(np.delete(first, block, 0), np.delete(second, block, 0)) for block in blocks]
    return solve(first, second), float(np.sqrt((BLOCKS - 1) * np.var(left)))
