"""How much a bright sheet every voxel looks like, and which way the sheet faces: the Hessian at the membrane's scale.

Across a bright sheet the second derivative is strongly negative, along it it vanishes; a filament has two such
directions, a blob three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.filters import mirror
from cryostudy.fourier import frequency_grid

PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Order of the components of a symmetric tensor: zz, yy, xx, zy, zx, yx."""
SMALLEST_SIGMA = 0.7  # voxels; below it the sampled derivative is aliased
CHUNK = 1 << 20  # voxels whose eigenvalues are computed at once in float64


def surfaceness(volume: Tensor, sigmas: Sequence[float], *, bright: bool = True) -> tuple[Tensor, Tensor]:
    """Sheet response (z, y, x), 0 or more, and unit normal (3, z, y, x) as (z, y, x) vectors of either sign.

    With eigenvalues e0 <= e1 <= e2 of the Hessian, scale-normalised by sigma squared, a bright sheet's response is
    max(0, -e0 - max(|e1|, |e2|)), the largest over the scales, and its normal is the eigenvector of e0. It is
    |e0| for a plane and 0 for a straight filament's axis and a ball's centre.

    Args:
        volume: (z, y, x), mirrored at its borders. sigmas: scales in voxels. bright: False finds dark sheets.
    Raises:
        InputError: a scale below 0.7 voxels, or none.
    Source: Hessian eigenvalues at the scale of the object: Frangi et al. 1998 (`frangi1998`); as the membrane
    detector of a tomogram: Martinez-Sanchez et al. 2011 (`martinezsanchez2011`). The difference of eigenvalues is
    tensor voting's saliency of a stick (`medioni2000`), so that one measure serves before and after the voting.
    """
    if not sigmas or min(sigmas) < SMALLEST_SIGMA:
        raise InputError(f"surfaceness: sigmas {tuple(sigmas)}; give scales of at least {SMALLEST_SIGMA} voxels")
    best, normal = volume.new_zeros(volume.shape), volume.new_zeros(3, *volume.shape)
    for sigma in sigmas:
        tensor = hessian(volume if bright else -volume, sigma)
        values, vector = lowest_eigenpair(tensor)
        response = (-values[0] - values[1:].abs().amax(0)).clamp(min=0)
        more = (response > best) | (sigma == sigmas[0])
        best = torch.where(more, response, best)
        normal = torch.where(more, vector, normal)
    return best, normal


def hessian(volume: Tensor, sigma: float) -> Tensor:
    """Second derivatives times sigma^2 of (z, y, x) after a Gaussian of `sigma` voxels: (6, z, y, x), see `PAIRS`."""
    reach = math.ceil(4 * sigma)
    fast = [next_fast_len(side + 2 * reach, real=True) - side - reach for side in reversed(volume.shape)]
    padded = mirror(volume[None, None], [pad for more in fast for pad in (reach, more)])[0, 0]
    sides = tuple(padded.shape)
    grid = [2 * math.pi * sigma * f for f in frequency_grid(sides, device=volume.device)]
    spectrum = torch.fft.rfftn(padded)
    for w in grid:
        spectrum = spectrum * torch.exp(-0.5 * w**2)
    inside = tuple(slice(reach, reach + n) for n in volume.shape)
    return torch.stack([-torch.fft.irfftn(spectrum * (grid[i] * grid[j]), s=sides)[inside] for i, j in PAIRS])


def lowest_eigenpair(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in ascending order (3, ...) and the lowest one's unit eigenvector (3, ...) of symmetric (6, ...).

    In closed form (Smith 1961, `smith1961`), in float64 by chunks. The vector is the largest column of
    (A - e1)(A - e2), which is a multiple of its projector; where e0 is not alone it is some unit vector.
    """
    flat = tensor.reshape(6, -1)
    values, vectors = torch.empty_like(flat[:3]), torch.empty_like(flat[:3])
    for start in range(0, flat.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        a = flat[:, part].double()
        mean = (a[0] + a[1] + a[2]) / 3
        d = [a[i] - mean for i in range(3)]
        o = [a[i] for i in range(3, 6)]  # zy, zx, yx
        spread = ((d[0] ** 2 + d[1] ** 2 + d[2] ** 2) / 6 + (o[0] ** 2 + o[1] ** 2 + o[2] ** 2) / 3).sqrt()
        determinant = (
            d[0] * (d[1] * d[2] - o[2] ** 2) - o[0] * (o[0] * d[2] - o[1] * o[2]) + o[1] * (o[0] * o[2] - o[1] * d[1])
        )
        cosine = determinant / (2 * spread**3).clamp(min=1e-300)
        angle = torch.acos(cosine.clamp(-1, 1)) / 3
        high = 2 * spread * torch.cos(angle)
        low = 2 * spread * torch.cos(angle + 2 * math.pi / 3)
        middle = -high - low
        values[:, part] = torch.stack([low + mean, middle + mean, high + mean]).to(values.dtype)

        # (D - middle)(D - high) = D^2 + low D + middle high, for the deviator's eigenvalues sum to 0.
        product = middle * high
        zz = d[0] ** 2 + o[0] ** 2 + o[1] ** 2 + low * d[0] + product
        yy = o[0] ** 2 + d[1] ** 2 + o[2] ** 2 + low * d[1] + product
        xx = o[1] ** 2 + o[2] ** 2 + d[2] ** 2 + low * d[2] + product
        zy = d[0] * o[0] + o[0] * d[1] + o[1] * o[2] + low * o[0]
        zx = d[0] * o[1] + o[0] * o[2] + o[1] * d[2] + low * o[1]
        yx = o[0] * o[1] + d[1] * o[2] + o[2] * d[2] + low * o[2]
        columns = torch.stack([torch.stack([zz, zy, zx]), torch.stack([zy, yy, yx]), torch.stack([zx, yx, xx])])
        norms = columns.square().sum(1)  # (column, voxel)
        largest = norms.argmax(0)
        vector = columns.gather(0, largest.expand(1, 3, -1))[0]
        length = vector.square().sum(0).sqrt()
        nothing = length <= 1e-12 * spread**2
        vector = torch.where(nothing, 0.0, vector / length.clamp(min=1e-300))
        vector[0] += nothing
        vectors[:, part] = vector.to(vectors.dtype)
    return values.reshape(3, *tensor.shape[1:]), vectors.reshape(3, *tensor.shape[1:])
