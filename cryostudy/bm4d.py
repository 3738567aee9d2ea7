"""BM4D: alike cubes of a volume, gathered in groups, are denoised together in a 4-D transform domain.

Written from Maggioni, Katkovnik, Egiazarian and Foi 2013 (`maggioni2013`), with the parameters of its "normal"
profile. The transforms are orthonormal and the same for every cube, which saves most of the work: every cube is
transformed once, distances between cubes are taken between their coefficients, filtered coefficients are added up where
their cubes lie, and every cube is transformed back once. That takes 1.4 kB a voxel: use tiles on large volumes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cryostudy.errors import InputError
from cryostudy.filters import mirror

CUBE = 4  # side of a cube, voxels
STEP = 3  # between reference cubes
RADIUS = 5  # alike cubes are looked for this far from the reference along each axis: in a window of 11^3
WINDOW = 2 * RADIUS + 1
BLOCK = 4  # reference cubes along an axis that are matched at once
SPAN = WINDOW + STEP * (BLOCK - 1)  # side of the windows of a block's references taken together
REACH = CUBE + RADIUS  # context for tiles, voxels; beyond it groups of neighbours still change, but little
THRESHOLD = 2.7  # of a 4-D coefficient, in standard deviations of its noise


class Stage(NamedTuple):
    """Most cubes in a group, and their largest distance: squared difference per voxel, in variances of the noise."""

    group: int
    distance: float


HARD, WIENER = Stage(16, 2.9), Stage(32, 0.4)


def bm4d(volume: Tensor, noise: float | Tensor, *, wiener: bool = True) -> Tensor:
    """BM4D of a volume (z, y, x) with additive Gaussian noise.

    An offset of the grey values passes through: the mean of a group is never shrunk.

    Args:
        noise: standard deviation of white noise; or of coloured noise the autocovariance at lags -3 to 3 along each
            axis, (7, 7, 7), zero lag at the centre. The threshold of each coefficient then follows the noise's variance
            in it, as in Mäkinen, Azzari and Foi 2020, but noise shared between the cubes of a group is left out.
        wiener: False stops after the hard-thresholding stage.
    Raises:
        InputError: noise of negative variance, or an autocovariance of another shape.
    """
    lags = 2 * CUBE - 1
    covariance = torch.as_tensor(noise, dtype=volume.dtype, device=volume.device)
    if covariance.ndim == 0:  # a variance that keeps the sign, so that a negative deviation is refused
        covariance = F.pad((covariance.abs() * covariance).reshape(1, 1, 1), [CUBE - 1] * 6)
    if covariance.shape != (lags,) * 3 or not 0 <= covariance[(CUBE - 1,) * 3] < math.inf:
        raise InputError(f"bm4d: noise must be a deviation, 0 or more, or an autocovariance of {lags}^3 lags")
    if not covariance.any():
        return volume.clone()
    mean = volume.mean()  # differences of squares are taken below
    estimate = collaborative(volume - mean, None, covariance)
    return (collaborative(volume - mean, estimate, covariance) if wiener else estimate) + mean


def collaborative(noisy: Tensor, pilot: Tensor | None, covariance: Tensor) -> Tensor:
    """One stage: hard thresholding (paper, Section III-A), or with a pilot estimate Wiener filter (III-B)."""
    stage = HARD if pilot is None else WIENER
    transform = kronecker(haar(CUBE) if pilot is None else dct(CUBE)).to(noisy)
    variance = coefficient_variance(covariance, transform)
    coefficients = grid(cubes(noisy) @ transform.T)
    guide = coefficients if pilot is None else grid(cubes(pilot) @ transform.T)
    inside = grid(torch.ones_like(cubes(noisy)[..., 0], dtype=torch.bool)[..., None])[..., 0]

    flat, flat_guide = coefficients.flatten(0, 2), guide.flatten(0, 2)
    total, weight = torch.zeros_like(flat), torch.zeros_like(flat[:, 0])
    for members, number in matches(guide, inside, stage, variance.mean().item()):
        for size in (2**k for k in range(stage.group.bit_length())):  # a Haar transform wants a power of two
            rows = members[(number >= size) & (number < 2 * size), :size]
            if not len(rows):
                continue
            along = haar(size).to(noisy)
            group = along @ flat[rows]
            if pilot is None:
                shrinkage = (group.square() > THRESHOLD**2 * variance).to(group)
            else:
                energy = (along @ flat_guide[rows]).square_()
                shrinkage = energy / (energy + variance)
            shrinkage[:, 0, 0] = 1
            factor = variance.mean() / (shrinkage.square() * variance).sum((1, 2), keepdim=True)
            filtered = along.T @ group.mul_(shrinkage).mul_(factor)
            total.index_add_(0, rows.flatten(), filtered.flatten(0, 1))
            weight.index_add_(0, rows.flatten(), factor.expand(-1, size, 1).flatten())
    return aggregate((total @ transform).view_as(coefficients), weight.view_as(inside), noisy.shape)


def cubes(volume: Tensor) -> Tensor:
    """All cubes of a volume, flattened: (z, y, x, 64). Mirrored so far that reference cubes reach its last voxel."""
    pad = [p for n in reversed(volume.shape) for p in (0, CUBE + STEP * (references(n) - 1) - n)]
    windows = mirror(volume[None, None], pad)[0, 0]
    for axis in range(3):
        windows = windows.unfold(axis, CUBE, 1)
    return windows.flatten(3)


def references(n: int) -> int:
    """How many reference cubes cover an axis of n voxels."""
    return math.ceil(max(n - CUBE, 0) / STEP) + 1


def grid(values: Tensor) -> Tensor:
    """Values of all cubes (z, y, x, c), zero-padded by the search radius and to whole blocks of reference cubes."""
    pad = [0, 0]
    for n in reversed(values.shape[:3]):
        blocks = math.ceil(references(n + CUBE - 1) / BLOCK)
        pad += [RADIUS, SPAN + STEP * BLOCK * (blocks - 1) - RADIUS - n]
    return F.pad(values, pad)


def matches(guide: Tensor, inside: Tensor, stage: Stage, variance: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The cubes most like each reference cube, block after block.

    Args:
        guide: coefficients of the grid's cubes, (z, y, x, 64). inside: which of them are in the volume. variance: of
            the noise.
    Yields:
        Places of the nearest cubes in the flattened grid, (n, group), the reference itself first, then the nearest; and
        how many of them are near enough, (n,).
    """

    def windows(x: Tensor) -> Tensor:
        for axis in range(3):
            x = x.unfold(axis, SPAN, STEP * BLOCK)
        return x

    every = slice(RADIUS, -RADIUS, STEP)
    places = torch.arange(inside.numel(), device=guide.device).view(inside.shape)
    offsets = (places[:WINDOW, :WINDOW, :WINDOW] - places[RADIUS, RADIUS, RADIUS]).flatten()
    centre = len(offsets) // 2
    norms = windows(guide.square().sum(-1).masked_fill_(~inside, math.inf))
    vectors, places, inside = windows(guide), windows(places), windows(inside)
    # a slab of blocks at once fills a GPU, a row of them stays in a CPU's cache
    rows = norms.shape[1] if guide.is_cuda else 1
    for z, y in itertools.product(range(norms.shape[0]), range(0, norms.shape[1], rows)):
        here = (z, slice(y, y + rows))
        candidates = vectors[here].flatten(0, 1)
        reference = candidates[..., every, every, every].flatten(2).transpose(1, 2)
        # |b|^2 - 2 ab, that is |a - b|^2 - |a|^2, for references a and candidates b of a block: (n, BLOCK^3, SPAN^3)
        square = norms[here].flatten(0, 1).flatten(1)[:, None]
        distance = torch.baddbmm(square, reference, candidates.flatten(2), alpha=-2)
        # each reference has its own window, STEP further along than that of the one before
        block, one = distance.stride()[:2]
        moves = [one * BLOCK ** (2 - k) + STEP * SPAN ** (2 - k) for k in range(3)]
        shape = [len(distance), *[BLOCK] * 3, *[WINDOW] * 3]
        distance = distance.as_strided(shape, [block, *moves, SPAN**2, SPAN, 1])
        valid = inside[here][..., every, every, every].flatten(0, 1)
        own = places[here][..., every, every, every].flatten(0, 1)[valid]
        distance = distance[valid].flatten(1)
        limit = stage.distance * variance * CUBE**3 + distance[:, centre]
        distance[:, centre] = -math.inf
        nearest, index = distance.topk(stage.group, largest=False)
        yield own[:, None] + offsets[index], (nearest <= limit[:, None]).sum(1)


def coefficient_variance(covariance: Tensor, transform: Tensor) -> Tensor:
    """Variance of the noise in each coefficient of a cube, (64,), from its autocovariance (7, 7, 7)."""
    place = torch.cartesian_prod(*[torch.arange(CUBE, device=covariance.device)] * 3)
    z, y, x = (place[:, None] - place + CUBE - 1).unbind(-1)
    variance = (transform @ covariance[z, y, x] * transform).sum(1)
    return variance.clamp_min(1e-6 * variance.mean())  # an estimated autocovariance may be slightly indefinite


def aggregate(cubes: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    """Weighted mean of all cubes that cover a voxel, each under a Kaiser window (paper, Equation 9)."""
    side = torch.kaiser_window(CUBE, periodic=False, beta=2.0, dtype=cubes.dtype, device=cubes.device)
    total, norm = (cubes.new_zeros([n + CUBE - 1 for n in weight.shape]) for _ in range(2))
    nz, ny, nx = weight.shape
    for k in range(CUBE**3):
        z, y, x = k // CUBE**2, k // CUBE % CUBE, k % CUBE
        factor = side[z] * side[y] * side[x]
        total[z : z + nz, y : y + ny, x : x + nx].add_(cubes[..., k] * factor)
        norm[z : z + nz, y : y + ny, x : x + nx].add_(weight * factor)
    where = tuple(slice(RADIUS, RADIUS + n) for n in shape)
    return total[where] / norm[where]


def haar(n: int) -> Tensor:
    """Orthonormal Haar transform (n, n), n a power of two; row 0 gives the mean.

    At length 4 it is also the paper's biorthogonal wavelet (bior1.5, periodic): its longer taps cancel when folded.
    """
    if n == 1:
        return torch.ones(1, 1)
    half = haar(n // 2)
    pairs = torch.cat([torch.kron(half, torch.tensor([[1.0, 1.0]])),
                       torch.kron(torch.eye(n // 2), torch.tensor([[1.0, -1.0]]))])  # fmt: skip
    return pairs / math.sqrt(2)


def dct(n: int) -> Tensor:
    """Orthonormal cosine transform (n, n), type II; row 0 gives the mean."""
    k = torch.arange(n)
    rows = torch.cos(math.pi / n * (k + 0.5) * k[:, None]) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def kronecker(rows: Tensor) -> Tensor:
    """The separable 3-D transform of a flattened cube, from the transform of one axis."""
    return reduce(torch.kron, [rows] * 3)
