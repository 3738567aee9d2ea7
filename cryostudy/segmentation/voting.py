"""Tensor voting in 3-D: pieces of surface strengthen one another where a smooth surface passes through both.

A voter with unit normal n tells the voxel at the distance r and direction d the normal which a circle through both
would have there, n' = n - 2 (n.d) d, with the weight exp(-r^2 / 2 sigma^2) (1 - (n.d)^2)^power. That is Medioni's
stick vote, with the chord for the arc and, for the penalty on curvature, a power of the cosine of the angle from the
voter's tangent plane. So written the vote is a polynomial in n, and all votes together are a few convolutions,
exactly, however many voters there are.
"""

from __future__ import annotations

import itertools
import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.filters import mirror
from cryostudy.segmentation.surfaceness import PAIRS, lowest_eigenpair

REACH = 2.5  # sigmas at which the field is cut; the weight is 0.04 there
Exponents = tuple[int, int, int]
Polynomial = dict[Exponents, Tensor]  # exponents of (n_z, n_y, n_x) -> coefficient at every offset


def tensor_voting(weight: Tensor, normal: Tensor, sigma: float, *, power: int = 2) -> tuple[Tensor, Tensor]:
    """Surface saliency (z, y, x) and refined unit normal (3, z, y, x) after one round of stick votes.

    The saliency is the difference of the two largest eigenvalues of the sum of votes, l1 - l2.

    Args:
        weight: (z, y, x), how strongly each voxel votes; 0 where it does not. normal: (3, z, y, x), unit vectors.
            Both are mirrored at the borders, where a surface would lose half of its voters.
        sigma: of the voting field, voxels. power: the larger, the flatter the surfaces it favours.
    Raises:
        InputError: sigma or power out of range.
    Source: Medioni, Lee and Tang 2000 (`medioni2000`); by steerable convolutions Franken et al. 2006
    (`franken2006`); for membranes in tomograms Martinez-Sanchez et al. 2014 (`martinezsanchez2014`).
    """
    if not 0.5 <= sigma < math.inf or power < 1:
        raise InputError(
            f"tensor_voting: sigma {sigma}, power {power}; give a sigma of 0.5 voxels or more, a power >= 1"
        )
    reach = math.ceil(REACH * sigma)
    # The field's middle lies `reach` voxels from its corner, so the sums come out that much later.
    inside = tuple(slice(2 * reach, 2 * reach + n) for n in weight.shape)
    weight, normal = _mirrored(weight, normal, reach)
    sides = tuple(weight.shape)
    votes = _votes(reach, sigma, power, weight)
    totals: list[Tensor | None] = [None] * 6
    for exponents in votes[0]:
        moment = weight.clone()
        for axis, times in enumerate(exponents):
            for _ in range(times):
                moment = moment * normal[axis]
        spectrum = torch.fft.rfftn(moment)
        for k, polynomial in enumerate(votes):
            term = spectrum * torch.fft.rfftn(polynomial[exponents], s=sides)
            old = totals[k]
            totals[k] = term if old is None else old.add_(term)
    tensor = torch.stack([torch.fft.irfftn(total, s=sides)[inside] for total in totals if total is not None])
    values, refined = lowest_eigenpair(-tensor)
    return values[1] - values[0], refined


def _mirrored(weight: Tensor, normal: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Voters continued by `reach` voxels or more, the normals reflected like the places they stand at."""
    fast = [next_fast_len(n + 2 * reach, real=True) - n - reach for n in reversed(weight.shape)]
    both = mirror(torch.cat([weight[None], normal])[:, None], [pad for more in fast for pad in (reach, more)])[:, 0]
    for axis, n in enumerate(weight.shape):
        place = torch.arange(both.shape[1 + axis], device=weight.device) - reach
        times = torch.div(place - (place > 0).long(), n - 1, rounding_mode="floor")  # reflections it has undergone
        shape = [-1 if i == axis else 1 for i in range(3)]
        both[1 + axis] *= (1 - 2 * (times % 2)).to(weight.dtype).reshape(shape)
    return both[0], both[1:]


def _votes(reach: int, sigma: float, power: int, like: Tensor) -> list[Polynomial]:
    """The vote's six components (`PAIRS`) as polynomials in the voter's normal, on a cube of offsets."""
    axis = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    offset = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    square = offset.square().sum(0)
    d = offset / square.sqrt().clamp(min=1e-6)  # 0 in the middle: a voter confirms itself
    field = torch.exp(-0.5 * square / sigma**2) * (square <= reach**2)
    unit: list[Exponents] = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    turned: list[Polynomial] = [{unit[k]: float(i == k) - 2 * d[i] * d[k] for k in range(3)} for i in range(3)]
    dot: Polynomial = {unit[k]: d[k] for k in range(3)}
    across = _product(dot, dot)
    flat: Polynomial = {e: float(max(e) == 2) - c for e, c in across.items()}  # |n|^2 - (n.d)^2
    common: Polynomial = {(0, 0, 0): field}
    for _ in range(power):
        common = _product(common, flat)
    return [_product(common, _product(turned[i], turned[j])) for i, j in PAIRS]


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for (ea, ca), (eb, cb) in itertools.product(a.items(), b.items()):
        key = (ea[0] + eb[0], ea[1] + eb[1], ea[2] + eb[2])
        result[key] = result[key] + ca * cb if key in result else ca * cb
    return result
